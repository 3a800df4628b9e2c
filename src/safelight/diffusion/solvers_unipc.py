"""UniPC: a multistep predictor, and a corrector that costs no call of its own."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from safelight.diffusion.solvers import level, steps, toward
from safelight.diffusion.solvers_adams import polynomial_weights
from safelight.types import Denoise, Noise, OnStep


def sample_unipc(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    sigmas: Float[Tensor, " n"],
    *,
    noise: Noise,
    on_step: OnStep | None = None,
    order: int = 2,
    lower_order_final: bool = True,
) -> Float[Tensor, "b c h w"]:
    """UniPC with `B(h) = exp(h) - 1` on x0, one call a step (Zhao et al. 2023, arXiv 2302.04867,
    algorithm 7): the call at a predicted x also corrects it, and the next step starts from there.

    The corrector lifts the order by 1. `lower_order_final` lets the order fall to 1 at the last
    step, as diffusers' `UniPCMultistepScheduler` does; a step to 0 is always of order 1. Takes what
    the samplers of `safelight.diffusion.solvers` do.
    """
    seen: list[tuple[float, Tensor]] = []  # level and x0 of earlier steps, the newest first
    start, used = x, 0  # x where the last step began, and its order
    count = len(sigmas) - 1
    for i, (sigma, target) in enumerate(steps(sigmas)):
        denoised = denoise(x, level(x, sigma))
        if i > 0:
            x = _step(start, [*seen[:used], (sigma, denoised)], sigma, corrects=True)
        seen = [(sigma, denoised), *seen[: order - 1]]
        start, used = x, min(len(seen), count - i if lower_order_final or target == 0 else order)
        x = _step(x, seen[:used], target, corrects=False)
        if on_step is not None:
            on_step(i, sigma, x, denoised)
    return x


def _step(
    x: Tensor, seen: Sequence[tuple[float, Tensor]], target: float, *, corrects: bool
) -> Tensor:
    """From x at the first level of `seen` to `target`, by the differences to the other levels' x0
    (eq. 3 and 8); one that `corrects` has the target's own as the last of them.
    """
    sigma, denoised = seen[0]
    ahead = denoised
    if len(seen) > 1:
        h = math.log(sigma / target)
        places = [math.log(sigma / former) / h for former, _ in seen[1:]]
        for place, weight, (_, other) in zip(
            places, _weights(places, h, corrects), seen[1:], strict=True
        ):
            ahead = ahead + weight / place * (other - denoised)
    return toward(ahead, x, target / sigma)


def _weights(places: Sequence[float], h: float, corrects: bool) -> list[float]:
    """The weights a of eq. 5, `R(p) a B(h) = phi(h)`; of order 2 (a predictor) or 1 (a corrector)
    with one difference, 1/2 does (section 3.3).
    """
    if len(places) == 1:
        return [0.5]
    right: list[float] = []
    phi = math.expm1(-h) / -h - 1
    for power in range(1, len(places) + 1):
        right.append(phi * math.factorial(power) / math.expm1(-h))
        phi = phi / -h - 1 / math.factorial(power + 1)
    return polynomial_weights(places, right)
