"""Aspect buckets: which shape a picture is cut to, and where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from safelight.data.config import DataConfig
from safelight.pictures import Colour, Levels, Size, flatten


@dataclass(frozen=True)
class View:
    """How a picture is cut: `zoom` >= 1, then a place in [0, 1] across and down, then a mirror."""

    zoom: float = 1.0
    across: float = 0.5
    down: float = 0.5
    flip: bool = False


def buckets_for(config: DataConfig) -> tuple[Size, ...]:
    """The shapes that a configuration cuts pictures to: one square, or a set of aspect buckets."""
    if not config.buckets:
        return ((config.size, config.size),)
    return aspect_buckets(config.size**2, config.multiple, config.max_aspect)


def aspect_buckets(area: int, multiple: int, max_aspect: float = 2.0) -> tuple[Size, ...]:
    """The shapes of about `area` pixels, never more, with sides that are multiples of `multiple`.

    For every width the height is the largest that fits. The aspect (long side to short) is at most
    `max_aspect`; the square is always among them. Sorted from tall to wide.

    Raises `ValueError` if not even one square of `multiple` fits in `area`.
    """
    side = math.isqrt(area) // multiple * multiple
    if side < multiple:
        raise ValueError(f"An area of {area} pixels has no room for {multiple} x {multiple}.")
    shapes = {(side, side)}
    for width in range(multiple, int(math.sqrt(area * max_aspect)) + 1, multiple):
        height = area // width // multiple * multiple
        if height and max(width, height) <= max_aspect * min(width, height):
            shapes |= {(width, height), (height, width)}
    return tuple(sorted(shapes, key=lambda size: (size[0] / size[1], size)))


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> int:
    """The index of the bucket nearest in aspect to `size`, by ratio; the larger if equal."""

    def distance(index: int) -> tuple[float, int]:
        width, height = buckets[index]
        return abs(math.log(size[0] * height / (size[1] * width))), -width * height

    return min(range(len(buckets)), key=distance)


def cut(
    levels: Levels, bucket: Size, view: View, background: Colour
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The part of a picture that `view` shows, resized to `bucket` and laid over `background`.

    The part has the bucket's aspect, so nothing is distorted, and touches two opposite edges at
    zoom 1.
    """
    height, width = levels.shape[:2]
    scale = min(width / bucket[0], height / bucket[1]) / view.zoom
    part = (min(width, bucket[0] * scale), min(height, bucket[1] * scale))  # rounding may exceed
    left, top = view.across * (width - part[0]), view.down * (height - part[1])
    if scale == 1:  # no resampling is needed, so none is done
        left, top = round(left), round(top)
    box = (left, top, min(width, left + part[0]), min(height, top + part[1]))
    picture = Image.fromarray(levels).resize(bucket, Image.Resampling.BICUBIC, box=box)
    rows = np.asarray(flatten(picture, background))
    return rows[:, ::-1] if view.flip else rows
