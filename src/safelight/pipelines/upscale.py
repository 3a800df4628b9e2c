"""Pictures enlarged by CompVis' super-resolution model."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image

from safelight.checkpoints.folder import SINGLE
from safelight.checkpoints.upscaler import CLASS, Upscaler, is_upscaler, read_upscaler
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.errors import SafelightError
from safelight.models.tiling import needs_tiles
from safelight.pipelines.beside import image_tensor
from safelight.pipelines.coding import decoded
from safelight.pipelines.find import lasting_name
from safelight.pipelines.generated import GeneratedImage, to_image
from safelight.pipelines.given import Given
from safelight.pipelines.hub import find_or_fetch
from safelight.pipelines.load import choose_device
from safelight.pipelines.manifest import Manifest, UsedPicture, pixel_digest
from safelight.pipelines.provenance import hashes_beside, library_versions, machine_of
from safelight.pipelines.request import Request
from safelight.rng import SeededNoise
from safelight.types import Conditioning, OnStep

STEPS = 100  # as in diffusers
_MULTIPLE = 32  # to which diffusers cuts the small picture's sides


@dataclass(frozen=True)
class Enlarger:
    """An upscaler and what it was loaded as; `load_enlarger` gives one."""

    upscaler: Upscaler
    name: str
    dtype: torch.dtype
    device: str

    @property
    def weights(self) -> dict[str, str]:
        """Each network's SHA-256, computed at the first use."""
        return self.upscaler.hashes

    def each(self, request: Request, on_step: OnStep | None = None) -> Iterator[GeneratedImage]:
        """The given image enlarged, once for each seed; of the rest of a request only the number
        of steps counts. Errors as `upscale`, and for a request without an image.
        """
        request.check()
        image = request.given.image
        if image is None:
            raise SafelightError(f"{self.name} enlarges a picture; give it an image.")
        steps = request.steps or STEPS
        for place in range(request.count):
            seed = request.seed + place
            made = upscale(self.upscaler, image.picture, steps=steps, seed=seed, on_step=on_step)
            yield GeneratedImage(made, self._manifest(request.given, made, steps, seed))

    def _manifest(self, given: Given, made: Image.Image, steps: int, seed: int) -> Manifest:
        files = self.upscaler.files
        return Manifest(
            prompt="",
            negative="",
            seed=seed,
            steps=steps,
            scale=1.0,
            sampler=self.upscaler.scheduler.sampler,
            width=made.width,
            height=made.height,
            model=self.name,
            weights=dict(self.weights),
            precision=str(self.dtype).removeprefix("torch."),
            device=self.device,
            machine=machine_of(self.device),
            threads=torch.get_num_threads(),
            pixels=pixel_digest(made),
            versions=library_versions(),
            configuration={} if SINGLE in files else hashes_beside(files),
            given={part: UsedPicture(p.file, p.sha256) for part, p in given.parts.items()},
        )


def load_enlarger(
    name: str, *, dtype: torch.dtype = torch.float32, device: str = "auto", offline: bool = False
) -> Enlarger:
    """Loads an upscaler by its folder or its id on the hub.

    Raises `SafelightError` as `find_or_fetch` and `read_upscaler`, and for a model of prompts.
    """
    device, found = choose_device(device), find_or_fetch(name, offline=offline)
    if not is_upscaler(found):
        raise SafelightError(
            f"The model {name!r} needs a PROMPT; an image alone is enlarged by CompVis' "
            f"super-resolution, a {CLASS} folder."
        )
    upscaler = read_upscaler(found, dtype=dtype, device=device)
    return Enlarger(upscaler, lasting_name(name), dtype, device)


def upscale(
    upscaler: Upscaler,
    image: Image.Image,
    *,
    steps: int = STEPS,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Image.Image:
    """Enlarges a picture by the autoencoder's factor, 4 in the published model.

    The small picture's sides are first brought down to multiples of 32, as diffusers does. It is
    the U-Net's condition, as in training, so that nothing is added to its noise (Rombach et al.
    2022, section 4.4).

    Raises `SafelightError` for a picture that is smaller than that, or for fewer steps than 1.
    """
    width, height = (side // _MULTIPLE * _MULTIPLE for side in image.size)
    if not width or not height:
        raise SafelightError(
            f"A picture to enlarge should be {_MULTIPLE} x {_MULTIPLE} pixels or more, got "
            f"{image.width} x {image.height}."
        )
    if steps < 1:
        raise SafelightError(f"steps should be 1 or more, got {steps}.")
    unet, scheduler = upscaler.unet, upscaler.scheduler
    weight = unet.conv_in.weight
    small = image_tensor(image.convert("RGB"), width, height)
    cond = Conditioning(concat=small.to(weight))
    half = None if weight.dtype == torch.float32 else weight.dtype
    denoiser = Denoiser(unet, scheduler.parameterization(), scheduler.schedule(), half)
    noise, sigmas = SeededNoise([seed], str(weight.device)), scheduler.sigmas(steps)
    shape = (1, unet.config.out_channels, height, width)
    with torch.inference_mode():
        z = scheduler.solver(steps)(
            cfg(denoiser, cond, cond, 1.0),
            noise(shape, 0) * scheduler.initial_scale(sigmas),
            sigmas,
            noise=noise,
            on_step=on_step,
        )
        # its latents are not scaled, whatever the autoencoder's configuration says by default
        factor = upscaler.autoencoder.factor
        tiled = needs_tiles(upscaler.autoencoder, width * factor, height * factor)
        pixels = decoded(upscaler.autoencoder, z * scheduler.final_scale(sigmas), tiled=tiled)
    return to_image(pixels[0].clamp(-1, 1))
