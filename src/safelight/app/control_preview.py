"""What a ControlNet in training does to a few pictures: shown beside the model left alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from safelight.app.preview_sampling import preview_latents
from safelight.app.recipe import PreviewConfig
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.data.companions import Companions
from safelight.data.latents import LatentCache
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.models.any_autoencoder import AnyAutoencoder, latent_channels
from safelight.pictures import stack_pixels
from safelight.rng import SeededNoise
from safelight.train.beside import as_hint
from safelight.train.latent_task import Conditioner
from safelight.train.loop import Preview
from safelight.types import Conditioning


@dataclass(frozen=True)
class Steered:
    """A model with the ControlNet, the same alone, its noise levels, what both are told of
    captions, and, in one row, what guidance leads away from.
    """

    steered: Denoiser
    alone: Denoiser
    scheduler: SchedulerConfig
    condition: Conditioner
    null: Conditioning
    autoencoder: AnyAutoencoder


def control_preview(
    model: Steered, config: PreviewConfig, cache: LatentCache, hints: Companions
) -> Callable[[int], Preview]:
    """Hints above what the model makes of them and of their pictures' captions, above what it makes
    of the captions alone; guided, by DDIM.

    The pictures are evenly chosen among those of the commonest shape.

    Raises `SafelightError` if the network knows fewer times than there are steps.
    """
    group = max(cache.groups, key=lambda group: len(group.items))
    every = max(1, len(group.items) // config.columns)
    chosen = group.items[::every][: config.columns]
    shown = stack_pixels([hints.of(item, group.bucket, False, 0) for item in chosen])
    captions = [cache.pictures.items[item].captions[0] for item in chosen]
    width, height = (side // model.autoencoder.factor for side in group.bucket)
    shape = (len(chosen), latent_channels(model.autoencoder), height, width)
    noise = SeededNoise([config.seed + i for i in range(len(chosen))])
    model.scheduler.sigmas(config.steps)  # raises now for too many

    def sample(denoiser: Denoiser, cond: Conditioning, uncond: Conditioning) -> Tensor:
        device = next(model.autoencoder.parameters()).device
        denoise = cfg(denoiser, cond, uncond, config.scale)
        z = preview_latents(denoise, model.scheduler, config.steps, noise, shape, device)
        return model.autoencoder.decode(model.autoencoder.unscale(z)).float().cpu()

    def preview(step: int) -> Preview:
        cond = model.condition(captions)
        uncond = Conditioning.cat([model.null] * len(captions))
        hint = shown.to(next(model.autoencoder.parameters()).device)
        with_hint = sample(model.steered, as_hint(cond, (hint,)), as_hint(uncond, (hint,)))
        rows = torch.stack([shown, with_hint, sample(model.alone, cond, uncond)])
        return Preview(rearrange(rows, "row b c h w -> c (row h) (b w)"))

    return preview
