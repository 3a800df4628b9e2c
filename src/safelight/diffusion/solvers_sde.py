"""Samplers of the reverse SDE: DPM++ SDE, 2M SDE and 3M SDE, as pure functions.

They take and give what those of `safelight.diffusion.solvers` do. k-diffusion draws a Brownian path
in sigma from a tree of one seed; here increments are drawn independently, one an interval, which
has the same distribution, whatever the batch. `eta` scales the noise: 0 is the ODE, 1 the SDE.
"""

import math

from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.solvers import level, split_noise, steps, toward
from safelight.types import Denoise, Noise, OnStep


def sample_dpmpp_sde(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    eta: float = 1.0,
) -> Float[Tensor, "b c h w"]:
    """DPM-Solver++ 2S on the SDE: two calls a step, the second halfway in log sigma (k-diffusion's
    `sample_dpmpp_sde` with r = 1/2; Lu et al. 2022, arXiv 2211.01095, section 5).

    Both calls see one Brownian path: the increment of the whole step is the sum of those of its
    parts, draws 2i + 1 and 2i + 2.
    """
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        if 0 < target < sigma:
            middle = math.sqrt(sigma * target)
            early, late = (noise(x.shape, 2 * i + k) for k in (1, 2))
            down, up = split_noise(sigma, middle, eta)
            halfway = toward(denoised, x, down / sigma) + up * early
            ahead = denoise(halfway, level(x, middle))
            share = (sigma - middle) / (sigma - target)  # of the path, which runs in sigma
            whole = math.sqrt(share) * early + math.sqrt(1 - share) * late
            down, up = split_noise(sigma, target, eta)
            x = toward(ahead, x, down / sigma) + up * whole
        elif target == 0:
            x = denoised
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def sample_dpmpp_2m_sde(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    eta: float = 1.0,
    lower_order_final: bool = True,
) -> Float[Tensor, "b c h w"]:
    """DPM-Solver++ 2M on the SDE, one call a step (Lu et al. 2022, arXiv 2211.01095, eq. 18, and
    k-diffusion's `sample_dpmpp_2m_sde` with its midpoint rule).

    The last step is of order 1 where `sample_dpmpp_2m`'s is. diffusers'
    `DPMSolverMultistepScheduler` with "sde-dpmsolver++".
    """
    former: tuple[Tensor, float] | None = None  # the last x0, and the last step in lambda
    last = len(sigmas) - 2
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        h = math.log(sigma / target) if target > 0 else math.inf
        settle = i == last and (target == 0 or (lower_order_final and last < 14))
        ahead = denoised
        if former is not None and not settle:
            former_denoised, former_h = former
            ahead = denoised + h / (2 * former_h) * (denoised - former_denoised)
        x = _drawn(ahead, x, sigma, target, eta, noise, i)
        former = denoised, h
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def sample_dpmpp_3m_sde(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    eta: float = 1.0,
) -> Float[Tensor, "b c h w"]:
    """DPM-Solver++ 3M on the SDE, one call a step (k-diffusion's `sample_dpmpp_3m_sde`).

    x0 is extrapolated along -ln(sigma) by the parabola through the last three. diffusers' own third
    order on the SDE has another sign in its last coefficient, and is not followed.
    """
    former: list[Tensor] = []  # earlier x0, the newest first
    lengths: list[float] = []  # earlier steps in lambda, likewise
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        h = math.log(sigma / target) if target > 0 else math.inf
        ahead = denoised
        if former and 0 < target < sigma:
            ratio = lengths[0] / h
            slope, bend = (denoised - former[0]) / ratio, None
            if len(former) > 1:
                earlier = (former[0] - former[1]) * (h / lengths[1])
                bend = (slope - earlier) / (ratio + lengths[1] / h)
                slope = slope + ratio * bend
            ahead = denoised + _curved(slope, bend, (1 + eta) * h)
        x = _drawn(ahead, x, sigma, target, eta, noise, i)
        former, lengths = [denoised, *former[:1]], [h, *lengths[:1]]
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def _curved(slope: Tensor, bend: Tensor | None, h: float) -> Tensor:
    """What a slope and a bend of x0 add to it, averaged over the step with the weight `exp`."""
    gone = -math.expm1(-h)  # the part of x that the step replaces
    linear = 1 - gone / h
    added = linear / gone * slope
    return added if bend is None else added - (linear / h - 0.5) / gone * bend


def _drawn(
    ahead: Tensor, x: Tensor, sigma: float, target: float, eta: float, noise: Noise, step: int
) -> Tensor:
    """x at `target`, where x0 stays `ahead` during the step, and the SDE's noise."""
    x = toward(ahead, x, (target / sigma) ** (1 + eta))
    up = target * math.sqrt(1 - (target / sigma) ** (2 * eta))
    return x + up * noise(x.shape, step + 1) if up > 0 else x
