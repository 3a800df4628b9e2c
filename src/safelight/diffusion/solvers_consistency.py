"""Samplers for models that were taught to jump: LCM and TCD, as pure functions.

They take and give what those of `safelight.diffusion.solvers` do.
"""

import math

from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.solvers import level, steps, toward
from safelight.types import Denoise, Noise, OnStep


def sample_lcm(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """Consistency sampling in several steps: x0 is taken at its word, and noised anew to the next
    level (Luo et al. 2023, arXiv 2310.04378, algorithm 3).

    Their boundary condition, which is 1 to a part in 10^5 from time 19 on, is left out.
    """
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        x = denoised + target * noise(x.shape, i + 1) if target > 0 else denoised
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def sample_tcd(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    gamma: float = 0.3,
    landings: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Strategic stochastic sampling of trajectory consistency distillation: each step jumps below
    its target, and is noised anew up to it (Zheng et al. 2024, arXiv 2402.19159, algorithm 4).

    `landings` (n,) are the levels that are jumped to, at `1 - gamma` of the target's time (see
    `sigmas.tcd_landings`); without them time is sigma itself.
    """
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        landing = (1 - gamma) * target if landings is None else landings[i].item()
        x = toward(denoised, x, landing / sigma)
        if landing < target:
            x = x + math.sqrt(target**2 - landing**2) * noise(x.shape, i + 1)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x
