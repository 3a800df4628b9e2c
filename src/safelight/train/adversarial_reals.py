"""Latents that a teacher makes, in the place of encoded pictures.

Source: Sauer et al. 2024 (LADD, arXiv 2403.12015), whose students learn from these alone.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.solvers import sample_euler
from safelight.train.distillation import FIRST_STREAM, Answer, Asked, Latents
from safelight.train.task import Draws


def teacher_samples(
    teacher: Answer, sigmas: Float[Tensor, " n"]
) -> Callable[[Latents, Asked, Draws], Latents]:
    """What makes, in the place of a batch's latents, as many of the teacher's own as asked, by
    Euler's method along the falling `sigmas` (steps + 1,), from noise alone.

    It costs the teacher's whole sampling in each step of training; samples that are made once and
    trained on as pictures cost it once.
    """

    @torch.no_grad()
    def samples(x0: Latents, asked: Asked, draws: Draws) -> Latents:
        noise = draws.normal(x0.shape, _START)
        return sample_euler(
            lambda x, sigma: teacher(x, sigma, asked),
            noise * sigmas[0].item(),
            sigmas,
            noise=_none_needed,
        )

    return samples


def _none_needed(shape: object, index: int) -> Tensor:
    raise ValueError("Euler's method draws no noise.")


_START = FIRST_STREAM + 3  # of the streams of random numbers
