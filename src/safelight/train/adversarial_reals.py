"""Latents that a teacher makes, in the place of encoded pictures.

Source: Sauer et al. 2024 (LADD, arXiv 2403.12015), section 3.2: a student that learns from nothing
but its teacher's samples holds closer to the prompt.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.diffusion.solvers import sample_euler
from safelight.train.task import Draws
from safelight.types import Conditioning

Latents = Float[Tensor, "b c h w"]


def teacher_samples(
    teacher: Denoiser,
    null: Callable[[int], Conditioning],
    sigmas: Float[Tensor, " n"],
    guidance: float,
) -> Callable[[Latents, Conditioning, Draws], Latents]:
    """What makes, in the place of a batch's latents, as many of the teacher's own under the same
    conditioning, by Euler's method along the falling `sigmas` (steps + 1,), from noise alone.

    `null` is what `guidance` leads away from, for a batch of that many. Each step costs the
    teacher's whole sampling; samples that are made once and trained on as pictures cost it once.
    """

    @torch.no_grad()
    def samples(x0: Latents, cond: Conditioning, draws: Draws) -> Latents:
        noise = draws.normal(x0.shape, _START)
        guided = cfg(teacher, cond, null(len(x0)), guidance)
        return sample_euler(guided, noise * sigmas[0].item(), sigmas, noise=_none_needed)

    return samples


def _none_needed(shape: object, index: int) -> Tensor:
    raise ValueError("Euler's method draws no noise.")


_START = 4  # of the streams of random numbers
