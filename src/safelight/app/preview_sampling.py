"""Latents of a training's previews, at the noise levels of the model's own scheduler file."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.diffusion.samplers import Sampler
from safelight.diffusion.solvers import sample_ddim
from safelight.types import Denoise, Noise


def preview_latents(
    denoise: Denoise,
    scheduler: SchedulerConfig,
    steps: int,
    noise: Noise,
    shape: tuple[int, ...],
    device: torch.device,
    solve: Sampler = sample_ddim,
) -> Float[Tensor, "b z h w"]:
    """Scaled latents, by DDIM unless said otherwise, as the finished model begins and stops them.

    Raises `SafelightError` if the network knows fewer times than there are steps.
    """

    def drawn(shape: Sequence[int], index: int) -> Tensor:
        return noise(shape, index).to(device)

    sigmas = scheduler.sigmas(steps)
    x = drawn(shape, 0) * scheduler.initial_scale(sigmas)
    return solve(denoise, x, sigmas, noise=drawn) * scheduler.final_scale(sigmas)
