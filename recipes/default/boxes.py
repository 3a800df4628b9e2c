"""Boxes around the objects of a picture, and how they stand to each other."""

import numpy as np
from camera import PICTURE

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are the first ones outside."""


def find_boxes(ids: np.ndarray) -> dict[int, Box]:
    """The box of every object id, but 0, in a map of ids (h, w)."""
    boxes = {}
    for identity in np.unique(ids[ids > 0]):
        rows, columns = np.nonzero(ids == identity)
        boxes[int(identity)] = (
            int(columns.min()),
            int(rows.min()),
            int(columns.max()) + 1,
            int(rows.max()) + 1,
        )
    return boxes


def relation_holds(relation: str, first: Box, second: Box) -> bool:
    """Whether two boxes stand in a relation clearly enough to be said.

    Left and right: the centres are apart by a fifth of the picture. In front: the foot is lower.
    """
    across = (second[0] + second[2] - first[0] - first[2]) / 2
    nearer = first[3] - second[3]
    return {
        "left of": across > PICTURE / 5,
        "right of": across < -PICTURE / 5,
        "in front of": nearer > PICTURE / 16,
        "behind": nearer < -PICTURE / 16,
    }[relation]
