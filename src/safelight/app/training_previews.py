"""Sample grids and measures that a training shows on its way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from safelight.app.preview_sampling import preview_latents
from safelight.app.recipe import PreviewConfig
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.conditioners.text import TextConditioner
from safelight.data.batches import PictureBatches
from safelight.data.config import DataConfig
from safelight.data.folders import PictureFolder
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.models.any_autoencoder import AnyAutoencoder, latent_channels, likeliest
from safelight.pictures import Size
from safelight.rng import SeededNoise
from safelight.train.loop import Preview
from safelight.types import Conditioning

_SHOWN, _MEASURED, _AT_ONCE = 8, 128, 16
_SEED = 0x5AFE  # a preview shows the same pictures in every run


@dataclass(frozen=True)
class Asked:
    """The prompts of a preview, its pictures' width and height, and what else is told.

    `told` puts the conditions in, or, for what guidance leads away from, those that it keeps.
    """

    prompts: Sequence[str]
    size: Size
    told: Callable[[Conditioning, bool], Conditioning]


def reconstruction_preview(
    autoencoder: AnyAutoencoder,
    folder: PictureFolder,
    config: DataConfig,
    device: torch.device,
) -> Callable[[int], Preview]:
    """Pictures above their reconstructions, and the mean PSNR in dB of at most 128 pictures."""
    pixels = some_pixels(folder, config, _MEASURED)

    def preview(step: int) -> Preview:
        outputs = reconstruct(autoencoder, pixels, device)
        shown = torch.stack([pixels[:_SHOWN], outputs[:_SHOWN]])  # (2, 8, 3, h, w)
        picture = rearrange(shown, "row column c h w -> c (row h) (column w)")
        return Preview(picture, {"psnr": float(psnr(outputs, pixels).mean())})

    return preview


def sample_preview(
    denoiser: Denoiser,
    scheduler: SchedulerConfig,
    text: TextConditioner,
    autoencoder: AnyAutoencoder,
    config: PreviewConfig,
    asked: Asked,
) -> Callable[[int], Preview]:
    """Pictures by DDIM at the model's own noise levels: unguided above guided, one column for each
    prompt.

    Raises `SafelightError` if the network knows fewer times than there are steps.
    """
    prompts = asked.prompts
    width, height = (side // autoencoder.factor for side in asked.size)
    shape = (len(prompts), latent_channels(autoencoder), height, width)
    noise = SeededNoise([config.seed + i for i in range(len(prompts))])
    scheduler.sigmas(config.steps)  # raises now for too many

    def preview(step: int) -> Preview:
        device = next(text.towers[0].parameters()).device
        cond = asked.told(text(prompts), False)
        uncond = asked.told(text([""] * len(prompts)), True)
        rows: list[Tensor] = []
        for scale in (1.0, config.scale):
            denoise = cfg(denoiser, cond, uncond, scale)
            z = preview_latents(denoise, scheduler, config.steps, noise, shape, device)
            rows.append(autoencoder.decode(autoencoder.unscale(z)).float().cpu())
        return Preview(rearrange(torch.stack(rows), "row b c h w -> c (row h) (b w)"))

    return preview


def some_pixels(folder: PictureFolder, config: DataConfig, count: int) -> Float[Tensor, "b 3 h w"]:
    """The same few pictures of a folder each time, cut at the centre and not mirrored."""
    still = replace(config, crop="center", zoom=1.0, flip=False, buckets=False, seed=_SEED)
    batch = PictureBatches(folder, still, min(count, len(folder.items))).batch(0)
    assert batch.pixels is not None
    return batch.pixels


@torch.no_grad()
def reconstruct(autoencoder: AnyAutoencoder, pixels: Tensor, device: torch.device) -> Tensor:
    """Pixels through the autoencoder and back, a few at a time, clamped to [-1, 1], on the CPU."""
    outputs: list[Tensor] = []
    for first in range(0, len(pixels), _AT_ONCE):
        part = pixels[first : first + _AT_ONCE].to(device)
        z = likeliest(autoencoder, part.contiguous(memory_format=torch.channels_last))
        outputs.append(autoencoder.decode(z).float().clamp(-1, 1).cpu())
    return torch.cat(outputs)


def psnr(output: Tensor, target: Tensor) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each picture in dB; pixels in [-1, 1]."""
    error = (output - target).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / error.clamp_min(1e-10))
