"""Latents of a training's previews, at the noise levels of the model's own scheduler file."""

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.diffusion.solvers import sample_ddim
from safelight.types import Denoise, Noise


def preview_latents(
    denoise: Denoise,
    scheduler: SchedulerConfig,
    steps: int,
    noise: Noise,
    shape: tuple[int, ...],
    device: torch.device,
) -> Float[Tensor, "b z h w"]:
    """Scaled latents by DDIM, as the finished model begins and stops them.

    Raises `SafelightError` if the network knows fewer times than there are steps.
    """
    sigmas = scheduler.sigmas(steps)
    x = noise(shape, 0).to(device) * scheduler.initial_scale(sigmas)
    return sample_ddim(denoise, x, sigmas, noise=noise) * scheduler.final_scale(sigmas)
