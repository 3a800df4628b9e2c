"""A mark in a picture's pixels that is not seen and is found again: that safelight made it.

It lies in low coefficients of the discrete cosine transform of the whole picture's brightness,
which stay what they are when it is resized, as they are waves over its width and height, whatever
number of pixels those have. A mirror image has them too, some with another sign, which the grids of
both bits allow for. It is one mark and no message: each coefficient holds a bit of a fixed hash.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from safelight.pipelines import block_mark
from safelight.pipelines.quantized_marks import (
    BRIGHTNESS,
    Found,
    agreeing,
    change_to,
    found,
    hashed_bits,
)

MARK = "qim-dct-2"
"""What manifests call the mark that pictures get now."""

_WAVES = 13  # half waves over a side are less than that
_LEAST, _MOST = 4, 14  # of both sides together; the lowest carry most of a picture
_SIDE = 64  # the side of a picture whose coefficients are as large as these
_STEP = 24.0  # of the quantizers
_ROOM = 4  # levels from black and from white that brightness needs to swing


def marked(image: Image.Image) -> Image.Image:
    """An RGB picture with the mark: brightness changes by 1 level a pixel or so, colours do not.

    What is nearer than 4 levels to black or white is moved that far from it, so that there is room.
    A picture of fewer than 26 pixels a side comes back as it is.
    """
    if not _fits(image):
        return image.convert("RGB")
    pixels = np.asarray(image.convert("RGB")).astype(np.float64).clip(_ROOM, 255 - _ROOM)
    height, width = pixels.shape[:2]
    change = change_to(_waves(pixels @ BRIGHTNESS), _bits(), _STEP) * _used()
    swing = _basis(height).T @ change @ _basis(width) * (math.sqrt(height * width) / _SIDE)
    return Image.fromarray((pixels + swing[..., None]).round().clip(0, 255).astype(np.uint8))


def find_mark(image: Image.Image) -> Found:
    """Looks for the mark, and for the one that earlier pictures have; gives the clearer."""
    former = block_mark.find_mark(image)
    if not _fits(image):
        return former
    pixels = np.asarray(image.convert("RGB")).astype(np.float64)
    agrees = agreeing(_waves(pixels @ BRIGHTNESS), _bits(), _STEP)
    return max(found(agrees[_used()], MARK), former, key=lambda one: one.deviations)


MARKS: dict[str, Callable[[Image.Image], Image.Image]] = {
    MARK: marked,
    block_mark.MARK: block_mark.marked,
}
"""What puts each mark into a picture."""


def _fits(image: Image.Image) -> bool:
    return min(image.size) >= 2 * _WAVES


def _waves(brightness: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "13 13"]:
    """The coefficients, as of a picture of 64 x 64 pixels that looks the same."""
    height, width = brightness.shape
    scale = _SIDE / math.sqrt(height * width)
    return _basis(height) @ brightness @ _basis(width).T * scale


@cache
def _bits() -> Bool[np.ndarray, "13 13"]:
    return hashed_bits(MARK, (_WAVES, _WAVES))


@cache
def _used() -> Bool[np.ndarray, "13 13"]:
    """Which coefficients hold a bit."""
    rows, columns = np.mgrid[:_WAVES, :_WAVES]
    return (rows + columns >= _LEAST) & (rows + columns <= _MOST)


@cache
def _basis(samples: int) -> Float[np.ndarray, "13 n"]:
    """The first rows of the orthonormal cosine transform (DCT-II) of so many samples."""
    k, n = np.mgrid[:_WAVES, :samples]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * samples)) * math.sqrt(2 / samples)
    basis[0] /= math.sqrt(2)
    return basis
