"""Samplers that remember earlier steps: DPM-Solver++ 2M and PLMS, as pure functions.

They take and give what those of `safelight.diffusion.solvers` do.
"""

import math

from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.solvers import level, steps, taken_as, toward
from safelight.diffusion.solvers_sde import sample_dpmpp_2m_sde
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
    lower_order_final: bool = True,
) -> Float[Tensor, "b c h w"]:
    """DPM-Solver++ of order 2, one call a step (Lu et al. 2022, arXiv 2211.01095, algorithm 2):
    `lambda` is -ln(sigma).

    The first step is of order 1, and so is the last if it reaches 0, or if there are fewer than 15
    and `lower_order_final`, as in diffusers' `DPMSolverMultistepScheduler`. The same as its SDE
    without noise, as Euler is DDIM.
    """
    return sample_dpmpp_2m_sde(
        denoise,
        x,
        sigmas,
        noise=noise,
        on_step=on_step,
        eta=0.0,
        lower_order_final=lower_order_final,
    )


def sample_plms(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    velocity: bool = False,
    calls: Float[Tensor, "m 3"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Pseudo linear multistep of order 4 (Liu et al. 2022, arXiv 2202.09778, eq. 12), whose first
    step is Heun's: one more call than there are steps. diffusers' `PNDMScheduler` with
    `skip_prk_steps`.

    What is extrapolated from earlier steps is the noise, or with `velocity` the network's v, as
    diffusers does for v-prediction. `calls` are the levels of each call where these are not those
    of `sigmas`: diffusers then takes x, at unit variance, as if it were at them (see
    `sigmas.pndm_calls`, which says what they are).
    """
    rows = _calls(steps(sigmas)) if calls is None else _rows(calls)
    outputs: list[Tensor] = []  # the newest first
    began = shown = x
    for i, (asked, start, target) in enumerate(rows):
        denoised = denoise(x, level(x, asked))
        output = _velocity(x, denoised, asked) if velocity else (x - denoised) / asked
        if i == 1:  # Heun's corrector goes the first step again
            mean = (outputs[0] + output) / 2
            x = taken_as(began, rows[0][0], start)
        else:
            shown, outputs = denoised, [output, *outputs[:3]]
            mean = _extrapolated(outputs)
        guess = _x0_of_velocity(x, mean, start) if velocity else x - start * mean
        x = toward(guess, x, target / start)
        x = taken_as(x, target, rows[i + 1][0] if i + 1 < len(rows) else sigmas[-1].item())
        if on_step is not None and (i > 0 or len(rows) == 1):
            on_step(max(i - 1, 0), start, x, shown)
    return x


def _calls(steps: list[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """The calls of steps that follow on one another: the first step has two."""
    (sigma, target), *later = steps
    corrector = [(target, sigma, target)] if later else []
    return [(sigma, sigma, target), *corrector, *((start, start, end) for start, end in later)]


def _rows(calls: Float[Tensor, "m 3"]) -> list[tuple[float, float, float]]:
    return [(row[0].item(), row[1].item(), row[2].item()) for row in calls.cpu()]


def _extrapolated(outputs: list[Tensor]) -> Tensor:
    weights = _ADAMS_BASHFORTH[len(outputs) - 1]
    first, *earlier = (weight * output for weight, output in zip(weights, outputs, strict=True))
    return sum(earlier, first)


def _velocity(x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    # v = (c_skip * x - x0) / -c_out; see safelight.diffusion.parameterization.v
    return (x / (1 + sigma**2) - denoised) * (math.sqrt(1 + sigma**2) / sigma)


def _x0_of_velocity(x: Tensor, v: Tensor, sigma: float) -> Tensor:
    return x / (1 + sigma**2) - v * (sigma / math.sqrt(1 + sigma**2))
