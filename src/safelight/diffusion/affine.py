"""Samplers without memory as constants: each step is x0, x and noise, each times a number.

Such steps can be taken for several pictures at once that stand at different noise levels (Kodaira
et al. 2023, arXiv 2312.12491, section 3.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.samplers import Sampler

MEMORYLESS = ("euler", "ddim", "euler_a", "ddpm", "lcm", "tcd")
"""The samplers whose step knows nothing of the steps before it, and calls the network once."""


@dataclass(frozen=True)
class AffineStep:
    """`of_x0 * x0 + of_x * x + of_noise * noise`, the next x."""

    of_x0: float
    of_x: float
    of_noise: float


def affine_step(solve: Sampler, sigmas: Float[Tensor, "2"]) -> AffineStep:
    """One step of a sampler of `MEMORYLESS`, from the first level to the second.

    The numbers are read off the sampler itself, by what it makes of ones and zeros in float64.
    """

    def answer(x0: float, x: float, drawn: float) -> float:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return _single(x0)

        def noise(shape: Sequence[int], index: int) -> Tensor:
            return _single(drawn)

        return solve(denoise, _single(x), sigmas, noise=noise).item()

    return AffineStep(answer(1.0, 0.0, 0.0), answer(0.0, 1.0, 0.0), answer(0.0, 0.0, 1.0))


def _single(value: float) -> Float[Tensor, "1 1 1 1"]:
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)
