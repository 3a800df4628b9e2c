"""Overlapping pieces of something long: where they lie, and how they are laid together."""

from collections.abc import Sequence

import torch
from torch import Tensor


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Where the pieces begin that cover a length, all of one size.

    Each overlaps the one before by `overlap`; the last ends where the whole does and may overlap by
    more. What is no longer than a piece is one piece. Raises `ValueError` for an overlap that is
    not between 0 and the size.
    """
    if not 0 <= overlap < size:
        raise ValueError(
            f"Pieces should overlap by 0 to their size less 1, got {overlap} of {size}."
        )
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def joined(pieces: Sequence[Tensor], begins: Sequence[int], dim: int) -> Tensor:
    """Pieces laid one after the other along an axis, piece i from `begins[i]` on.

    Where a piece overlaps what is there it fades in linearly, from 0 where it begins, so that
    neighbours differ by no more than within a piece plus, for each piece that fades in there, what
    the pieces are apart by over the length of the overlap.
    """
    whole = pieces[0]
    for piece, begin in zip(pieces[1:], begins[1:], strict=True):
        overlap = whole.shape[dim] - begin
        weight = torch.arange(overlap, device=whole.device, dtype=whole.dtype) / max(overlap, 1)
        shape = [1] * whole.ndim
        shape[dim] = overlap
        before, after = whole.narrow(dim, begin, overlap), piece.narrow(dim, 0, overlap)
        faded = torch.lerp(before, after, weight.reshape(shape))
        rest = piece.narrow(dim, overlap, piece.shape[dim] - overlap)
        whole = torch.cat([whole.narrow(dim, 0, begin), faded, rest], dim)
    return whole
