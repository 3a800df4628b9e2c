"""Quantization index modulation, by which marks are put into coefficients and found in them: each
is moved to the nearest point of one of two grids, as its bit says (Chen and Wornell 2001, IEEE
Transactions on Information Theory 47(4), section V: with uniform scalar quantizers).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

BRIGHTNESS = np.array([0.299, 0.587, 0.114])
"""As JPEG's, of red, green and blue."""

_LEAST = 6.0  # standard deviations; of independent bits chance gives as many once in 10**9


@dataclass(frozen=True)
class Found:
    """What was looked for in a picture.

    Attributes:
        deviations: by how many standard deviations more bits are as the mark has them than half of
            them, which an unmarked picture has.
        bits: how many there are.
        mark: the name of the mark that was looked for.
    """

    deviations: float
    bits: int
    mark: str

    @property
    def marked(self) -> bool:
        """Whether the mark is there. Chance alone says so of one picture in 10**9, if its bits are
        independent of each other; a picture of fewer than 36 bits is never said to be marked.
        """
        return self.deviations >= _LEAST


def hashed_bits(mark: str, shape: Sequence[int]) -> Bool[np.ndarray, "..."]:
    """The bits that a mark's name gives."""
    size = math.prod(shape)
    stream = hashlib.shake_256(f"safelight {mark}".encode()).digest(-(-size // 8))
    return np.unpackbits(np.frombuffer(stream, np.uint8))[:size].astype(bool).reshape(shape)


def change_to(
    values: Float[np.ndarray, "..."], bits: Bool[np.ndarray, "..."], step: float
) -> Float[np.ndarray, "..."]:
    """What takes values to the nearest points of their bits' grids, of points `step` apart."""
    shift = bits * step / 2
    return step * np.round((values - shift) / step) + shift - values


def agreeing(
    values: Float[np.ndarray, "..."], bits: Bool[np.ndarray, "..."], step: float
) -> Bool[np.ndarray, "..."]:
    """Whether values are nearer to their bits' grids than to the others."""
    return np.round(values / (step / 2)) % 2 == bits


def found(agrees: Bool[np.ndarray, "..."], mark: str) -> Found:
    """What of so many bits is found."""
    count = agrees.size
    if not count:
        return Found(0.0, 0, mark)
    return Found((int(agrees.sum()) - count / 2) / math.sqrt(count / 4), count, mark)
