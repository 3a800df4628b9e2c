"""Samplers that remember earlier steps: DPM-Solver++ 2M and PLMS, as pure functions."""

import math

from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.solvers import level, steps, toward
from safelight.types import Denoise, Noise, OnStep

_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def sample_dpmpp_2m(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """DPM-Solver++ of order 2, one call a step (Lu et al. 2022, arXiv 2211.01095, algorithm 2);
    of order 1 where it starts and where it reaches 0.
    """
    former: tuple[Tensor, float] | None = None  # the last x0, and the last step in log sigma
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        if target == 0:
            x = denoised
        else:
            h = math.log(sigma / target)
            guess = denoised
            if former is not None:
                last, last_h = former
                guess = denoised + (denoised - last) * (h / (2 * last_h))
            x = toward(guess, x, target / sigma)
            former = denoised, h
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def sample_plms(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """Pseudo linear multistep of order 4 (Liu et al. 2022, arXiv 2202.09778, eq. 12), whose first
    step is Heun's: one more call than there are steps. `PNDMScheduler` with `skip_prk_steps`.
    """
    slopes: list[Tensor] = []  # d x / d sigma, which is the predicted noise, the newest first
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        slope = (x - denoised) / sigma
        slopes = [slope, *slopes[:3]]
        if i == 0 and len(sigmas) > 2:
            ahead = x + (target - sigma) * slope
            mean = (slope + (ahead - denoise(ahead, level(x, target))) / target) / 2
        else:
            weights = _ADAMS_BASHFORTH[len(slopes) - 1]
            mean = sum(
                (w * s for w, s in zip(weights[1:], slopes[1:], strict=True)), weights[0] * slope
            )
        x = x + (target - sigma) * mean
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x
