"""A picture made by what another program wrote into its file."""

import re
import sys
from dataclasses import replace

from PIL import Image, ImageChops, ImageStat

from safelight.app.making import counting_steps
from safelight.errors import SafelightError
from safelight.pipelines.generated import GeneratedImage
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.infotext import Infotext
from safelight.pipelines.infotext_model import model_of, refiner_of
from safelight.pipelines.infotext_request import asked_in
from safelight.pipelines.load import load

_BY_STEPS = re.compile(r"v1\.[0-7]\.")
_STABLE_2, _STABLE_XL = 1024, 2048  # numbers that a token of context has


def remake_told(infotext: Infotext, *, model: str | None, vae: str | None) -> GeneratedImage:
    """Makes the picture of an infotext, and says on standard error what of it is not honoured.

    `model` and `vae` stand in for those that it names. Raises `SafelightError` if no model is known
    by its name or hash, or for a parameter that is not what it should be.
    """
    asked = asked_in(infotext)
    named, other = model_of(infotext) if model is None else (model, ())
    notes = [*asked.notes, *other]
    theirs = infotext.parameters.get("VAE")
    if theirs and theirs != "None" and vae is None:
        notes.append(f"The autoencoder {theirs!r} is not looked for; give it by --vae.")
    refiner, others = refiner_of(infotext)
    notes += others
    if refiner is not None:
        notes += _other_switch(infotext)
    for note in notes:
        print(f"safelight: {note}", file=sys.stderr)
    pipeline = load(named, vae=vae, refiner=refiner, refine_at=_switch(infotext, refiner))
    request = asked.request
    if not _skips_layers(pipeline):
        request = replace(request, clip_skip=None)
    settings = pipeline.settle(request)
    with counting_steps(settings.total_steps) as on_step:
        [picture] = pipeline.each(request, on_step)
    return picture


def _switch(infotext: Infotext, refiner: str | None) -> float | None:
    """The part of the noise schedule before the refiner; None for the usual one."""
    said = infotext.parameters.get("Refiner switch at")
    if refiner is None or said is None:
        return None
    try:
        return float(said)
    except ValueError:
        raise SafelightError(
            f"The infotext's Refiner switch at should be a number, got {said!r}."
        ) from None


def _other_switch(infotext: Infotext) -> list[str]:
    """A line where the refiner was counted by steps, as an option does, and all did until 1.8."""
    by_steps = infotext.parameters.get("Refiner switch by sampling steps") == "True"
    if by_steps or _BY_STEPS.match(infotext.parameters.get("Version", "")):
        return ["The refiner began at a part of the steps there; here, of the noise schedule."]
    return []


def _skips_layers(pipeline: ImagePipeline) -> bool:
    """Whether the web UI heeds "Clip skip" with such a model: not with OpenCLIP's towers, which
    Stable Diffusion 2 and XL have.
    """
    return pipeline.folder.unet.config.cross_attention_dim not in (_STABLE_2, _STABLE_XL)


def compared(then: Image.Image, now: Image.Image) -> str:
    """How two pictures compare, in words."""
    if then.size != now.size:
        sizes = [f"{image.width}x{image.height}" for image in (now, then)]
        return f"the new picture is {sizes[0]}, the file's {sizes[1]}."
    channels = ImageStat.Stat(ImageChops.difference(then.convert("RGB"), now)).mean
    return f"the pictures differ by {sum(channels) / len(channels):.1f} of 255 levels on average."
