"""Samplers that put fresh noise back after each step, as the reverse Markov chain does: DDPM, and
Euler, DPM-Solver-2 and DPM++ 2S ancestral, as pure functions.

They take and give what those of `safelight.diffusion.solvers` do. Each step goes down the ODE to
less noise than its target has, and fresh noise makes up for it (`split_noise`).
"""

import math

from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.solvers import PURE_NOISE, level, sample_ddim, split_noise, steps, toward
from safelight.types import Denoise, Noise, OnStep


def sample_ddpm(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """Draws each x from the posterior given the next noisier one and x0, order 1 (Ho et al. 2020,
    eq. 6-7, with the smaller variance).

    In sigma space its mean is `x0 + (target / sigma)^2 * (x - x0)` and its variance `target^2 * (1
    - (target / sigma)^2)`, which is what Euler ancestral draws from, too.
    """
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        kept = (target / sigma) ** 2
        x = toward(denoised, x, kept)
        if target > 0:
            x = x + target * math.sqrt(1 - kept) * noise(x.shape, i + 1)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def sample_euler_ancestral(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """Euler's method with the noise of the reverse Markov chain put back each step; the same as
    DDIM with eta 1 (Song et al. 2021, eq. 16).
    """
    return sample_ddim(denoise, x, sigmas, noise=noise, on_step=on_step, eta=1.0)


def sample_dpm2_ancestral(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    eta: float = 1.0,
) -> Float[Tensor, "b c h w"]:
    """`sample_dpm2` with fresh noise, `eta` times as much as DDPM's (k-diffusion's
    `sample_dpm_2_ancestral`; diffusers' `KDPM2AncestralDiscreteScheduler`).
    """
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        down, up = split_noise(sigma, target, eta)
        euler = toward(denoised, x, down / sigma)
        if down > 0 and sigma < PURE_NOISE:
            middle = math.sqrt(sigma * down)
            halfway = denoise(toward(denoised, x, middle / sigma), level(x, middle))
            x = euler + (down - sigma) / middle * (denoised - halfway)
        else:
            x = euler
        if up > 0:
            x = x + up * noise(x.shape, i + 1)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def sample_dpmpp_2s_ancestral(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    eta: float = 1.0,
) -> Float[Tensor, "b c h w"]:
    """DPM-Solver++ of order 2 with its midpoint halfway in log sigma, two calls a step, and fresh
    noise (Lu et al. 2022, arXiv 2211.01095, algorithm 1; k-diffusion's
    `sample_dpmpp_2s_ancestral`).
    """
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        down, up = split_noise(sigma, target, eta)
        ahead = denoised
        if down > 0:
            middle = math.sqrt(sigma * down)
            ahead = denoise(toward(denoised, x, middle / sigma), level(x, middle))
        x = toward(ahead, x, down / sigma)
        if up > 0:
            x = x + up * noise(x.shape, i + 1)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x
