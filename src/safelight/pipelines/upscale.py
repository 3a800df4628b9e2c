"""Pictures enlarged by CompVis' super-resolution model."""

import torch
from PIL import Image

from safelight.checkpoints.upscaler import Upscaler
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.errors import SafelightError
from safelight.models.tiling import needs_tiles
from safelight.pipelines.beside import image_tensor
from safelight.pipelines.coding import decoded
from safelight.pipelines.generated import to_image
from safelight.rng import SeededNoise
from safelight.types import Conditioning, OnStep

STEPS = 100  # as in diffusers
_MULTIPLE = 32  # to which diffusers cuts the small picture's sides


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
