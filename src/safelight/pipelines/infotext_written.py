"""A manifest in the words of AUTOMATIC1111's web UI."""

from collections.abc import Iterator
from pathlib import Path

from safelight.checkpoints.folder import SINGLE
from safelight.conditioners.prompt_grammar import escaped
from safelight.pipelines.infotext import Infotext
from safelight.pipelines.infotext_controls import written_controls
from safelight.pipelines.manifest import Manifest
from safelight.pipelines.request import first_step
from safelight.pipelines.webui_names import SAMPLERS, SCHEDULES, UPSCALERS

PROGRAM = "safelight"
SHORT_HASH = 10
"""Digits of a file's SHA-256 by which the web UI names a model."""


def infotext_of(manifest: Manifest) -> Infotext:
    """What the web UI would write of a picture.

    Adapters become tags in the prompt, as it knows them; controls, fields of its ControlNet
    extension. A model's hash is that of its single file;
    a folder has none. Marks that were plain text are escaped.
    """
    prompt, negative = manifest.prompt, manifest.negative
    if manifest.prompt_syntax == "plain":
        prompt, negative = (escaped(text) for text in (prompt, negative))
    tags = [f"<lora:{Path(used.file).stem}:{_number(used.strength)}>" for used in manifest.adapters]
    parameters = {name: value for name, value in _parameters(manifest) if value is not None}
    return Infotext(" ".join([prompt, *tags]), negative, parameters)


def _schedule(name: str | None) -> str | None:
    return None if name is None else SCHEDULES.get(name, name)


def _parameters(manifest: Manifest) -> Iterator[tuple[str, str | None]]:
    """The parameters in the web UI's order, None for those that the picture has not."""
    digest, hires, refiner = manifest.weights.get(SINGLE), manifest.hires, manifest.refiner
    yield "Steps", str(manifest.steps)
    yield "Sampler", SAMPLERS.get(manifest.sampler, manifest.sampler)
    yield "Schedule type", _schedule(manifest.schedule)
    yield "CFG scale", _number(manifest.scale)
    yield "Image CFG scale", _number(manifest.image_scale)
    yield "Seed", str(manifest.seed)
    yield "Size", f"{manifest.width}x{manifest.height}"
    yield "Model hash", None if digest is None else digest[:SHORT_HASH]
    yield "Model", _name(manifest.model, single=digest is not None)
    yield "VAE", Path(manifest.vae).name or None
    if manifest.subseed_strength > 0:
        yield "Variation seed", str(manifest.subseed)
        yield "Variation seed strength", _number(manifest.subseed_strength)
    yield "Denoising strength", _number(hires.strength if hires else manifest.strength)
    yield "Mask blur", None if manifest.mask_blur is None else str(manifest.mask_blur)
    yield "Clip skip", str(manifest.clip_skip) if manifest.clip_skip > 1 else None
    if hires is not None:
        steps = hires.steps or manifest.steps
        yield "Hires upscale", _number(hires.scale)
        yield "Hires steps", str(steps - first_step(steps, hires.strength))
        yield "Hires upscaler", UPSCALERS[hires.upscaler]
    if refiner is not None:
        hashed = refiner.weights.get(SINGLE)
        short = "" if hashed is None else f" [{hashed[:SHORT_HASH]}]"
        yield "Refiner", _name(refiner.model, single=hashed is not None) + short
        yield "Refiner switch at", _number(refiner.at)
    yield from written_controls(manifest.controls)
    yield "Token merging ratio", _number(manifest.token_merging or None)
    yield "RNG", "CPU" if manifest.rng == "cpu" else None
    yield "Version", f"{PROGRAM} {manifest.versions.get(PROGRAM, '')}".strip()


def _name(model: str, *, single: bool) -> str:
    path = Path(model)
    return path.stem if single else path.name


def _number(value: float | None) -> str | None:
    """A number as briefly as it can be read back."""
    if value is None:
        return None
    return str(int(value)) if value == int(value) else repr(value)
