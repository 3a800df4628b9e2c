"""Samplers of one step each: Euler, DDIM, Heun, DPM-Solver-2 and DPM++ 2S, as pure functions.

Each takes `denoise`, x (b, c, h, w) at noise level `sigmas[0]` (float32 or finer) and falling noise
levels (n + 1,), and gives x at `sigmas[-1]`. Step i draws `noise(x.shape, i + 1)` if it needs
noise; draw 0 is the initial x. Steps are written between x and x0, never over a difference of two
large numbers, so that float32 holds at any sigma.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.types import Denoise, Noise, OnStep

PURE_NOISE = 1000.0
"""From this sigma up x is noise alone, as at zero terminal SNR. Samplers that take a second slope
step down from there by Euler's: the difference of the slopes counts sigma / target times.
"""


def sample_euler(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """Euler's method on the probability-flow ODE, order 1 (Karras et al. 2022, algorithm 1, lines
    4-5); the same as DDIM with eta 0.
    """
    return sample_ddim(denoise, x, sigmas, noise=noise, on_step=on_step)


def sample_ddim(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    eta: float = 0.0,
    landings: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """DDIM (Song et al. 2021, eq. 12 and 16): `eta` 0 is deterministic, 1 draws as DDPM does.

    `landings` (n,) are the levels that the steps truly go to, where these are not the next of
    `sigmas`: diffusers then takes x, at unit variance, as if it were at the next (see
    `sigmas.ddim_landings`).
    """
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        landing = target if landings is None else landings[i].item()
        down, up = split_noise(sigma, landing, eta)
        x = toward(denoised, x, down / sigma)
        if up > 0:
            x = x + up * noise(x.shape, i + 1)
        x = taken_as(x, landing, target)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def sample_heun(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """Heun's method, order 2, two calls a step but one where the target is 0, and one from
    `PURE_NOISE` (Karras et al. 2022, algorithm 1).

    The corrector `(d' - d) / 2 * (target - sigma)` is written with `d' - d = (x0 - x0') / target`,
    which holds because both slopes pass through the same predicted x.
    """
    for i, (sigma, target) in enumerate(steps(sigmas)):
        x, denoised = heun_step(denoise, x, sigma, target)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def heun_step(
    denoise: Denoise, x: Float[Tensor, "b c h w"], sigma: float, target: float
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
    """One of its steps: x at `target`, and x0 at `sigma`."""
    denoised = denoise(x, level(x, sigma))
    x = toward(denoised, x, target / sigma)
    if target > 0 and sigma < PURE_NOISE:
        corrected = denoise(x, level(x, target))
        x = x + (target - sigma) / (2 * target) * (denoised - corrected)
    return x, denoised


def sample_dpm2(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """DPM-Solver-2, order 2, two calls a step but one where the target is 0, and one from
    `PURE_NOISE`: the slope of the whole step is taken halfway in log sigma (Lu et al. 2022, arXiv
    2206.00927, algorithm 1).

    `(target - sigma) * (x' - x0') / middle` is written with `(x' - x0') / middle = (x - x0) / sigma
    + (x0 - x0') / middle`.
    """
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        euler = toward(denoised, x, target / sigma)
        if target > 0 and sigma < PURE_NOISE:
            middle = math.sqrt(sigma * target)
            halfway = denoise(toward(denoised, x, middle / sigma), level(x, middle))
            x = euler + (target - sigma) / middle * (denoised - halfway)
        else:
            x = euler
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def sample_dpmpp_2s(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """DPM-Solver++ of order 2 in pairs of steps, one call each (Lu et al. 2022, arXiv 2211.01095,
    algorithm 1): the first of a pair is Euler's, the second starts again where the pair did.

    The last step is Euler's, as in diffusers' `DPMSolverSinglestepScheduler`.
    """
    start, first, began = x, x, 0.0  # x, x0 and sigma where the pair began
    last = len(sigmas) - 2
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        if i % 2 == 0 or i == last:
            start, first, began = x, denoised, sigma
            x = toward(denoised, x, target / sigma)
        else:
            part = math.log(began / sigma) / math.log(began / target)  # of the pair, in log sigma
            x = toward(first + (denoised - first) / (2 * part), start, target / began)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def steps(sigmas: Float[Tensor, " n"]) -> list[tuple[float, float]]:
    """The noise level that each step starts from, and the one that it goes to."""
    return list(pairwise(sigma.item() for sigma in sigmas.cpu()))


def split_noise(sigma: float, target: float, eta: float) -> tuple[float, float]:
    """How far down the ODE goes, and how much fresh noise makes up for it, so that both together
    reach `target`: (Song et al. 2021, eq. 16, with `sigma = sqrt((1 - a) / a)`).
    """
    up = min(target, eta * target * max(0.0, 1 - (target / sigma) ** 2) ** 0.5)
    return (target**2 - up**2) ** 0.5, up


def toward(
    denoised: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"], ratio: float
) -> Float[Tensor, "b c h w"]:
    """One Euler step: x moved towards x0 until `ratio` of its noise is left."""
    return torch.lerp(denoised, x, ratio)


def taken_as(x: Float[Tensor, "b c h w"], sigma: float, other: float) -> Float[Tensor, "b c h w"]:
    """What at another level has the same x of unit variance as x at `sigma`: x divided by
    `sqrt(1 + sigma^2)`, which is what diffusers' classes hand on where their levels do not meet.
    """
    return x if sigma == other else x * math.sqrt((1 + other**2) / (1 + sigma**2))


def level(x: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, " b"]:
    """One noise level for each row of x."""
    return torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)
