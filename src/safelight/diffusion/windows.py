"""Pictures larger than a network was trained for, denoised window by window (MultiDiffusion)."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.nn.tiles import starts
from safelight.types import ConditionalDenoise, Conditioning

_VARIANCE = 0.01  # of a window's weights, of its width squared


def windowed(
    denoise: ConditionalDenoise, size: int, overlap: int, *, fade: bool = False
) -> ConditionalDenoise:
    """A denoiser that sees x through windows of `size` x `size` places, and gives at each place the
    mean of what the windows over it expect (Bar-Tal et al. 2023, arXiv 2302.08113, eq. 5).

    Neighbours overlap by `overlap` or, at the right and lower edges, more. With `fade` a window
    counts for less towards its edges, by a normal density, which hides them (Barbero Jiménez 2023,
    arXiv 2302.02412). `concat`, `hints` and their masks are cut as x is; all else is the same for
    every window.
    The windows run one after the other, in the memory that one takes. Where a single window covers
    x the result is that of `denoise`, to the bit.

    Differs from the published algorithm, which averages what a step makes of each window: for a
    step that is linear in x and x0, as of DDIM, it is the same; fresh noise and a solver's memory
    stay those of the whole.

    The result raises `ValueError` for residuals and features, which a control network should add to
    each window, and for hints whose sides are no multiples of x's.
    """

    def over_windows(
        x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]:
        height, width = x.shape[-2:]
        if height <= size and width <= size:
            return denoise(x, sigma, cond)
        weights = x.new_ones(min(height, size), min(width, size))
        if fade:
            down, across = (_bell(side) for side in weights.shape)
            weights = (down[:, None] * across).to(weights)
        total, count = torch.zeros_like(x), x.new_zeros(height, width)
        for top in starts(height, size, overlap):
            for left in starts(width, size, overlap):
                place = (..., slice(top, top + size), slice(left, left + size))
                part = denoise(x[place], sigma, _cut(cond, x, top, left, size))
                total[place] += weights * part
                count[place] += weights
        return total / count

    return over_windows


def _bell(length: int) -> Float[Tensor, " length"]:
    """A normal density over the places of a window, greatest in the middle, where it is 1."""
    offset = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2) / length
    return torch.exp(-(offset**2) / (2 * _VARIANCE))


def _cut(cond: Conditioning, x: Tensor, top: int, left: int, size: int) -> Conditioning:
    """What is beside x and over it in one window."""
    if cond.residuals or cond.features:
        raise ValueError("Residuals of the whole do not fit a window; compute them in each.")
    return replace(
        cond,
        concat=None if cond.concat is None else _part(cond.concat, x, top, left, size),
        hints=tuple(_part(hint, x, top, left, size) for hint in cond.hints),
        hint_masks=tuple(_part(mask, x, top, left, size) for mask in cond.hint_masks),
    )


def _part(picture: Tensor, x: Tensor, top: int, left: int, size: int) -> Tensor:
    """The window of a picture that is a whole number of times as large as x."""
    times, rest = divmod(picture.shape[-1], x.shape[-1])
    if rest or not times or picture.shape[-2] != times * x.shape[-2]:
        raise ValueError(
            f"A picture of {picture.shape[-2]} x {picture.shape[-1]} is not a whole number of "
            f"times as large as x, {x.shape[-2]} x {x.shape[-1]}."
        )
    down, right, side = top * times, left * times, size * times
    return picture[..., down : down + side, right : right + side]
