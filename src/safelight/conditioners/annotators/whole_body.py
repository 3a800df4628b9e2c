"""Everyone in a picture with body, hands and face, as DWPose finds them: the arithmetic around its
two networks, a detector of people (YOLOX, Ge et al. 2021, arXiv 2107.08430) and a pose network that
tells each point's column and row apart (SimCC, Li et al. 2022, arXiv 2107.03332; DWPose, Yang et
al. 2023, arXiv 2307.15880).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from safelight.conditioners.annotators.opencv import levels_of, opencv
from safelight.conditioners.annotators.pose import Keypoint, Person, Points, body_of_coco
from safelight.errors import SafelightError
from safelight.pictures import Size

POINTS = 133
"""Of COCO-WholeBody (Jin et al. 2020, arXiv 2007.11858): 17 of the body, 6 of the feet, 68 of the
face, 21 of each hand, the left one first."""

CELLS = 2
"""Of SimCC to a pixel of the pose network's input."""

Box = Float[np.ndarray, "4"]
"""Left, top, right and bottom, in pixels."""

WholeBody = tuple[Float[np.ndarray, "133 2"], Float[np.ndarray, "133"]]
"""One person's points in pixels, and how sure each is, about 0 to 1."""

_BODY, _FACE = slice(0, 17), slice(23, 91)
_LEFT_HAND, _RIGHT_HAND = slice(91, 112), slice(112, 133)
_STRIDES = (8, 16, 32)  # of YOLOX's three grids
_GREY = 114  # around what is too narrow for the detector, as it was trained
_SURE, _OVERLAP = 0.3, 0.45  # of a box to be a person's, and of two to be the same one's
_PADDING = 1.25  # of a box for the pose network
_MEAN, _STD = np.array((123.675, 116.28, 103.53)), np.array((58.395, 57.12, 57.375))


def detector_input(image: Image.Image, side: int) -> tuple[Float32[np.ndarray, "1 3 s s"], float]:
    """What YOLOX looks at, levels of blue, green and red in the upper left of a grey square, and
    how many of its pixels are one of the picture's.
    """
    scale = min(side / image.width, side / image.height)
    width, height = (max(1, int(length * scale)) for length in image.size)
    square = np.full((side, side, 3), _GREY, np.uint8)
    square[:height, :width] = opencv().resize(levels_of(image)[:, :, ::-1], (width, height))
    return np.ascontiguousarray(square.transpose(2, 0, 1)[None], dtype=np.float32), scale


def people_boxes(found: Float32[np.ndarray, "n d"], side: int, scale: float) -> list[Box]:
    """The boxes of people, the surest first, in the picture's pixels.

    `found` is YOLOX's output, of each cell of its three grids: the place of a box's middle and the
    logarithms of its sides in cells, how sure it is, and of each class; people are the first.

    Raises `SafelightError` for another number of cells.
    """
    counts = [side // stride for stride in _STRIDES]
    cells = sum(count**2 for count in counts)
    if len(found) != cells or found.shape[1] < 6:
        raise SafelightError(
            f"A detector of people has {cells} cells of 6 numbers or more at {side} pixels, got "
            f"{len(found)} of {found.shape[1]}."
        )
    strides = np.repeat(_STRIDES, [count**2 for count in counts])[:, None]
    corners = np.concatenate([_grid(count) for count in counts])
    middle = (found[:, :2] + corners) * strides
    half = np.exp(found[:, 2:4]) * strides / 2
    sure = found[:, 4] * found[:, 5]
    boxes = np.concatenate((middle - half, middle + half), axis=1)
    kept: list[Box] = []
    for place in np.argsort(-sure):
        if sure[place] <= _SURE:
            break
        if all(_overlap(boxes[place], other) <= _OVERLAP for other in kept):
            kept.append(boxes[place])
    return [box / scale for box in kept]


@dataclass(frozen=True)
class Crop:
    """A part of a picture that fills the pose network's input.

    Attributes:
        middle: of the part, in the picture's pixels, from the left and from the top.
        sides: its width and height likewise.
        size: of the network's input in pixels.
    """

    middle: Float[np.ndarray, "2"]
    sides: Float[np.ndarray, "2"]
    size: Size

    @classmethod
    def around(cls, box: Box, size: Size) -> "Crop":
        """A box with a margin, widened or heightened to the shape of the network's input."""
        corners = np.asarray(box, dtype=np.float64).reshape(2, 2)
        width, height = np.maximum(corners[1] - corners[0], 1) * _PADDING
        aspect = size[0] / size[1]
        sides = np.array((max(width, height * aspect), max(height, width / aspect)))
        return cls(corners.mean(axis=0), sides, size)

    def of(self, levels: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "1 3 y x"]:
        """The part of a picture, of zero mean and unit deviation as ImageNet's pictures have it;
        outside of the picture is black.
        """
        scale = self.size[0] / self.sides[0]
        shift = np.array(self.size) / 2 - self.middle * scale
        matrix = np.array(((scale, 0, shift[0]), (0, scale, shift[1])))
        part = opencv().warpAffine(levels, matrix, self.size)
        return ((part - _MEAN) / _STD).astype(np.float32).transpose(2, 0, 1)[None]

    def places(self, cells: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 2"]:
        """Places in cells of SimCC as places in the picture, in pixels."""
        inside = cells / (np.array(self.size) * CELLS)
        return (inside - 0.5) * self.sides + self.middle


def decode_simcc(
    columns: Float32[np.ndarray, "k x"], rows: Float32[np.ndarray, "k y"]
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k"]]:
    """The likeliest cell of each point, and how sure it is: the less sure of column and row."""
    cells = np.stack((columns.argmax(axis=1), rows.argmax(axis=1)), axis=1).astype(np.float64)
    return cells, np.minimum(columns.max(axis=1), rows.max(axis=1))


def whole_person(
    places: Float[np.ndarray, "133 2"],
    surety: Float[np.ndarray, "133"],
    threshold: float,
    *,
    hands: bool = True,
    face: bool = True,
) -> Person:
    """A person of COCO-WholeBody's points, without those less sure than `threshold`, and without
    the feet, which OpenPose's 18 do not have.
    """
    points: Points = tuple(
        Keypoint(float(x), float(y)) if sure >= threshold else None
        for (x, y), sure in zip(places, surety, strict=True)
    )
    return Person(
        body_of_coco(points[_BODY]),
        left_hand=points[_LEFT_HAND] if hands else (),
        right_hand=points[_RIGHT_HAND] if hands else (),
        face=points[_FACE] if face else (),
    )


def _grid(count: int) -> Float[np.ndarray, "cells 2"]:
    """From the left and from the top, row by row."""
    across, down = np.meshgrid(np.arange(float(count)), np.arange(float(count)))
    return np.stack((across.ravel(), down.ravel()), axis=1)


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    areas = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]))
    return shared / (areas - shared) if areas > shared else 0.0
