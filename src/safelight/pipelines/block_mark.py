"""The mark of earlier pictures, which is lost when they are resized: read still, and put into what
is made again of them.

It lies in low coefficients of the discrete cosine transform of the brightness, in the blocks of 8 x
8 pixels that JPEG has, too; each holds the bit that a fixed hash of its block's place names.
"""

import math
from functools import cache

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from safelight.pipelines.quantized_marks import (
    BRIGHTNESS,
    Found,
    agreeing,
    change_to,
    found,
    hashed_bits,
)

MARK = "qim-dct-1"
"""What manifests call this mark."""

_BLOCK = 8
_COEFFICIENTS = ((0, 2), (1, 1), (2, 0))
_STEP = 16.0  # of the quantizers; JPEG's own, at quality 80, are 4 to 6
_ROOM = 3  # levels from black and from white that brightness needs to swing
_TILE = 64  # blocks after which the bits come again


def marked(image: Image.Image) -> Image.Image:
    """An RGB picture with the mark: brightness changes by 1 level a pixel or so, colours do not.

    What is nearer than 3 levels to black or white is moved that far from it, so that there is room.
    A picture smaller than a block comes back as it is.
    """
    pixels = np.asarray(image.convert("RGB")).astype(np.float64)
    rows, columns = (side // _BLOCK for side in pixels.shape[:2])
    if not rows or not columns:
        return image.convert("RGB")
    area = pixels[: rows * _BLOCK, : columns * _BLOCK]  # a view: what is beside it stays
    area[:] = area.clip(_ROOM, 255 - _ROOM)
    coefficients = _transformed(area @ BRIGHTNESS)
    change = np.zeros_like(coefficients)
    for place, bits in zip(_COEFFICIENTS, _bits(rows, columns), strict=True):
        was = coefficients[..., place[0], place[1]]
        change[..., place[0], place[1]] = change_to(was, bits, _STEP)
    area += _back(change)[..., None]
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def find_mark(image: Image.Image) -> Found:
    """Looks for the mark, at the blocks that the picture's upper left corner begins."""
    pixels = np.asarray(image.convert("RGB")).astype(np.float64)
    rows, columns = (side // _BLOCK for side in pixels.shape[:2])
    if not rows or not columns:
        return Found(0.0, 0, MARK)
    coefficients = _transformed(pixels[: rows * _BLOCK, : columns * _BLOCK] @ BRIGHTNESS)
    agrees = [
        agreeing(coefficients[..., place[0], place[1]], bits, _STEP)
        for place, bits in zip(_COEFFICIENTS, _bits(rows, columns), strict=True)
    ]
    return found(np.stack(agrees), MARK)


def _bits(rows: int, columns: int) -> list[Bool[np.ndarray, "r c"]]:
    """The bits of each coefficient."""
    r, c = np.arange(rows) % _TILE, np.arange(columns) % _TILE
    return [tile[np.ix_(r, c)] for tile in _tiles()]


@cache
def _tiles() -> list[Bool[np.ndarray, "64 64"]]:
    return list(hashed_bits(MARK, (len(_COEFFICIENTS), _TILE, _TILE)))


def _transformed(brightness: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "r c 8 8"]:
    rows, columns = (side // _BLOCK for side in brightness.shape)
    blocks = brightness.reshape(rows, _BLOCK, columns, _BLOCK).transpose(0, 2, 1, 3)
    return _basis() @ blocks @ _basis().T


def _back(coefficients: Float[np.ndarray, "r c 8 8"]) -> Float[np.ndarray, "h w"]:
    blocks = _basis().T @ coefficients @ _basis()
    rows, columns = blocks.shape[:2]
    return blocks.transpose(0, 2, 1, 3).reshape(rows * _BLOCK, columns * _BLOCK)


@cache
def _basis() -> Float[np.ndarray, "8 8"]:
    """The orthonormal cosine transform (DCT-II) of 8 samples, a frequency a row."""
    k, n = np.mgrid[:_BLOCK, :_BLOCK]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * _BLOCK)) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    return basis
