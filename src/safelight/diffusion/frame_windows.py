"""Long clips through a denoiser of short ones: windows along the frames that overlap."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.nn.tiles import starts
from safelight.types import ConditionalDenoise, Conditioning


def over_windows(
    denoise: ConditionalDenoise, size: int, overlap: int, *, loop: bool = False
) -> ConditionalDenoise:
    """A denoiser of clips that sees `size` frames at a time, and gives for each frame the mean of
    what the windows over it expect (Bar-Tal et al. 2023, arXiv 2302.08113, eq. 5, along time).

    A window counts for less towards its ends, on a straight line, which hides them. Neighbours
    overlap by `overlap` frames or, at the end, more; with `loop` they go round, so that the last
    frame comes before the first. Rows are the frames of clip after clip, `cond.num_frames` each;
    what has a row a frame is cut as x is. The windows run one after the other, in the memory that
    one takes. Where one window covers a clip that does not loop the result is that of `denoise`, to
    the bit.

    The result raises `ValueError` for a conditioning without `num_frames`.
    """

    def through(
        x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]:
        frames = cond.num_frames
        if frames is None:
            raise ValueError("Windows along frames need a conditioning with num_frames.")
        if frames <= size and not loop:
            return denoise(x, sigma, cond)
        clips = len(x) // frames
        span = min(size, frames)
        total, count = torch.zeros_like(x), x.new_zeros(frames)
        weights = _ramp(span).to(x)
        for places in windows(frames, size, overlap, loop=loop):
            rows = torch.cat([places + clip * frames for clip in range(clips)]).to(x.device)
            part = denoise(x[rows], sigma[rows], _cut(cond, rows, len(x), span))
            total[rows] += weights.repeat(clips)[:, None, None, None] * part
            count[places.to(x.device)] += weights
        return total / count.repeat(clips)[:, None, None, None]

    return through


def by_clip(denoise: ConditionalDenoise) -> ConditionalDenoise:
    """A denoiser that takes one clip after the other, in the memory that one takes; so also one
    side of guidance after the other.
    """

    def one_by_one(
        x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c h w"]:
        count = len(x) // (cond.num_frames or len(x))
        parts = zip(x.chunk(count), sigma.chunk(count), cond.chunk(count), strict=True)
        return torch.cat([denoise(*part) for part in parts])

    return one_by_one


def windows(frames: int, size: int, overlap: int, *, loop: bool) -> list[Tensor]:
    """The frames of each window in their order; `ValueError` for an overlap that is not between 0
    and the size less 1.
    """
    if not loop:
        begins = starts(frames, size, overlap)
        return [torch.arange(first, min(first + size, frames)) for first in begins]
    span = min(size, frames)
    if not 0 <= overlap < size:
        raise ValueError(f"Windows should overlap by 0 to {size - 1} frames, got {overlap}.")
    step = max(span - max(overlap, span // 2 if frames <= size else 0), 1)
    return [torch.arange(first, first + span) % frames for first in range(0, frames, step)]


def _ramp(length: int) -> Float[Tensor, " length"]:
    """Weights that fall on straight lines from the middle to the ends, where they are above 0."""
    place = torch.arange(length, dtype=torch.float32)
    return torch.minimum(place, length - 1 - place) + 1


def _cut(cond: Conditioning, rows: Tensor, total: int, span: int) -> Conditioning:
    """The conditioning of the chosen rows of `total`."""

    def each(tensor: Tensor | None) -> Tensor | None:
        return tensor[rows] if tensor is not None and len(tensor) == total else tensor

    if cond.residuals or cond.features or cond.hints:
        raise ValueError("Windows along frames take no control networks.")
    return replace(
        cond,
        context=each(cond.context),
        vector=each(cond.vector),
        concat=each(cond.concat),
        num_frames=span,
    )
