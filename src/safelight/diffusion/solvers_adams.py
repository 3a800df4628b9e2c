"""Linear multistep samplers with weights for uneven steps: LMS and DEIS, as pure functions.

They take and give what those of `safelight.diffusion.solvers` do. Both integrate, over sigma from
here to the target, the polynomial through the last slopes `(x - x0) / sigma`; they differ in what
it is a polynomial of.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.solvers import level, steps, toward
from safelight.types import Denoise, Noise, OnStep


def sample_lms(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    order: int = 4,
) -> Float[Tensor, "b c h w"]:
    """Adams-Bashforth in sigma, one call a step: the first steps are of lower order (Hairer et al.
    1993, Solving Ordinary Differential Equations I, eq. III.5.5; k-diffusion's `sample_lms`).
    """
    slopes: list[Tensor] = []  # the newest first
    levels: list[float] = []
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        slopes = [(x - denoised) / sigma, *slopes[: order - 1]]
        levels = [sigma, *levels[: order - 1]]
        if target < sigma:
            places = [(former - sigma) / (target - sigma) for former in levels]
            moments = [1 / (power + 1) for power in range(len(places))]
            x = _along(x, slopes, polynomial_weights(places, moments), sigma, target)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def sample_deis(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    order: int = 2,
    lower_order_final: bool = True,
) -> Float[Tensor, "b c h w"]:
    """DEIS of the kind rho-AB, with polynomials of log sigma, one call a step (Zhang and Chen 2023,
    arXiv 2204.13902, eq. 15-17).

    With fewer than 15 steps and `lower_order_final` the last is of order 1 and the one before of
    order 2 at most, as in diffusers' `DEISMultistepScheduler`; so is the last where it reaches 0.
    """
    slopes: list[Tensor] = []  # the newest first
    levels: list[float] = []
    count = len(sigmas) - 1
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        slopes = [(x - denoised) / sigma, *slopes[: order - 1]]
        levels = [sigma, *levels[: order - 1]]
        most = count - i if (lower_order_final and count < 15) or target == 0 else order
        if target < sigma:
            places = [math.log(former / sigma) for former in levels[:most]]
            moments = _log_moments(sigma, target, len(places))
            x = _along(x, slopes[:most], polynomial_weights(places, moments), sigma, target)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def polynomial_weights(places: Sequence[float], moments: Sequence[float]) -> list[float]:
    """The weights with which values at `places` give the mean over a step of every polynomial of
    the place, where `moments` are those means of its powers.
    """
    powers = np.vander(np.asarray(places), increasing=True).T
    return np.linalg.solve(powers, np.asarray(moments)).tolist()


def _along(
    x: Tensor, slopes: Sequence[Tensor], weights: Sequence[float], sigma: float, target: float
) -> Tensor:
    """One step along the weighted mean of slopes."""
    mean = torch.stack([w * slope for w, slope in zip(weights, slopes, strict=True)]).sum(0)
    return toward(x - sigma * mean, x, target / sigma)


def _log_moments(sigma: float, target: float, count: int) -> list[float]:
    """The means of `ln(s / sigma)^m` over s from sigma to target, by parts."""
    log = math.log(target / sigma) if target > 0 else 0.0  # which target = 0 multiplies
    moments = [1.0]
    for power in range(1, count):
        moments.append(target * log**power / (target - sigma) - power * moments[-1])
    return moments
