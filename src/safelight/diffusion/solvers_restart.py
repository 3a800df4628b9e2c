"""Restart: down the ODE, back up by fresh noise over a middle stretch, and down again."""

import math
from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.sigmas import karras_sigmas
from safelight.diffusion.solvers import heun_step, steps
from safelight.types import Denoise, Noise, OnStep

_LOW, _HIGH = 0.1, 2.0
"""The stretch that AUTOMATIC1111 restarts over."""


def sample_restart(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b c h w"]:
    """Heun's method, whose x is noised anew from sigma 0.1 up to 2 and brought down again (Xu et
    al. 2023, arXiv 2306.14878, algorithm 1).

    The steps asked for are shared out as AUTOMATIC1111 does: from 20 on nine of them go down again,
    from 36 on a quarter of them twice; the rest are laid out between the ends of `sigmas` by Karras
    et al. 2022. Fewer are Heun's on `sigmas`. Takes what the samplers of
    `safelight.diffusion.solvers` do.
    """
    reached, drawn = math.inf, 0
    for i, (sigma, target) in enumerate(_stretches(sigmas)):
        if sigma > reached:
            drawn += 1
            x = x + math.sqrt(sigma**2 - reached**2) * noise(x.shape, drawn)
        x, denoised = heun_step(denoise, x, sigma, target)
        reached = target
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def _stretches(sigmas: Float[Tensor, " n"]) -> Iterable[tuple[float, float]]:
    """The steps, as many as `sigmas` has, with those that are gone again."""
    count = len(sigmas) - 1
    if count < 20:
        return steps(sigmas)
    again, times = (9, 1) if count < 36 else (count // 4, 2)
    low, high, end = (sigmas[place].item() for place in (-2, 0, -1))
    main = karras_sigmas(count - again * times, low, high, final_sigma=end)
    bottom, top = ((main - near).abs().argmin().item() for near in (_LOW, _HIGH))
    if top >= bottom:
        return steps(sigmas)
    over = karras_sigmas(again + 1, main[int(bottom)].item(), main[int(top)].item())[:-1]
    over[-1] = main[int(bottom)]  # to the last digit, or it would look like another way up
    down = steps(main)
    return [*down[: int(bottom)], *steps(over) * times, *down[int(bottom) :]]
