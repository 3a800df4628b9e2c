"""Samplers that remember earlier steps: DPM-Solver++ 2M and PLMS, as pure functions.

They take and give what those of `safelight.diffusion.solvers` do.
"""

import math

from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.solvers import level, steps, toward
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
) -> Float[Tensor, "b c h w"]:
    """Pseudo linear multistep of order 4 (Liu et al. 2022, arXiv 2202.09778, eq. 12), whose first
    step is Heun's: one more call than there are steps. diffusers' `PNDMScheduler` with
    `skip_prk_steps`.

    What is extrapolated from earlier steps is the noise, or with `velocity` the network's v, as
    diffusers does for v-prediction. Differs from diffusers where its layout of times is uneven
    (linspace, and trailing where the steps do not divide the times), because there its steps do not
    land on the level that the next one starts from.
    """
    outputs: list[Tensor] = []  # the newest first
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        output = _velocity(x, denoised, sigma) if velocity else (x - denoised) / sigma
        outputs = [output, *outputs[:3]]
        if i == 0 and len(sigmas) > 2:
            ahead = toward(denoised, x, target / sigma)
            again = denoise(ahead, level(x, target))
            second = _velocity(ahead, again, target) if velocity else (ahead - again) / target
            mean = (output + second) / 2
        else:
            weights = _ADAMS_BASHFORTH[len(outputs) - 1]
            mean = sum(
                (w * o for w, o in zip(weights[1:], outputs[1:], strict=True)), weights[0] * output
            )
        guess = _x0_of_velocity(x, mean, sigma) if velocity else x - sigma * mean
        x = toward(guess, x, target / sigma)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def _velocity(x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    # v = (c_skip * x - x0) / -c_out; see safelight.diffusion.parameterization.v
    return (x / (1 + sigma**2) - denoised) * (math.sqrt(1 + sigma**2) / sigma)


def _x0_of_velocity(x: Tensor, v: Tensor, sigma: float) -> Tensor:
    return x / (1 + sigma**2) - v * (sigma / math.sqrt(1 + sigma**2))
