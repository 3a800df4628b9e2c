"""Boxes of things in a picture, as its metadata names them, and as a cut shows them."""

from collections.abc import Sequence

from safelight.conditioners.boxes import box_of
from safelight.data.folders import PictureItem
from safelight.errors import SafelightError
from safelight.pictures import Size
from safelight.types import Box

_LEAST = 0.1
"""The part of a box that a cut must show for the box to be there."""


def boxes_of(item: PictureItem, column: str) -> list[Box]:
    """The boxes of a picture: a list of `{"label": ..., "box": [left, top, right, bottom]}`, edges
    as parts of its width and height.

    Raises `SafelightError` if the metadata has none in `column`, or no such ones.
    """
    rows = item.extras.get(column)
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise SafelightError(
            f"{item.path} has no {column!r} in its metadata; expected a list of boxes."
        )
    return [box_of(row, str(item.path)) for row in rows]


def as_cut(boxes: Sequence[Box], size: Size, bucket: Size, *, flip: bool) -> list[Box]:
    """Boxes of a picture of a size, as the middle of it shows them that has the bucket's aspect;
    those of which little is left are left out.
    """
    scale = min(size[0] / bucket[0], size[1] / bucket[1])
    part = [bucket[axis] * scale / size[axis] for axis in (0, 1)]  # of the width, of the height
    cut: list[Box] = []
    for box in boxes:
        edges = [
            (edge - (1 - part[place % 2]) / 2) / part[place % 2]
            for place, edge in enumerate(box.edges)
        ]
        left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in edges)
        whole = (edges[2] - edges[0]) * (edges[3] - edges[1])
        if (right - left) * (bottom - top) < _LEAST * whole:
            continue
        across = (1 - right, 1 - left) if flip else (left, right)
        cut.append(Box(box.label, (across[0], top, across[1], bottom)))
    return cut
