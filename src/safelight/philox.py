"""The normal numbers of CUDA's generator, drawn on the CPU.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3 (Philox
4x32-10), laid out as PyTorch's CUDA kernels do: number i of draw k has the counter (k, 0, i, 0) and
the seed as its key, and is the first of the Box-Muller transform of the first two words.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

Words = npt.NDArray[np.uint64]  # each below 2**32

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], dtype=np.uint64)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW, _HALF = np.uint64(0xFFFF_FFFF), np.uint64(32)
_UNIT = 2.0**-32
_TURN = float(np.float32(2 * math.pi * _UNIT))  # in CUDA it is of single precision


class GpuDraws:
    """The draws that `torch.randn` would make of a seed on a CUDA device, one call after the other.

    So for draws of no more numbers than the device has threads for, about 100,000 on those of
    consumers: a kernel takes further words of the same counters for what is beyond. The last digits
    are not CUDA's, whose logarithms and sines are coarser.
    """

    def __init__(self, seed: int):
        self._key = (seed & 0xFFFF_FFFF, (seed >> 32) & 0xFFFF_FFFF)
        self._drawn = 0

    def __call__(self, shape: Sequence[int]) -> Float[Tensor, "..."]:
        """The next draw, float32 on the CPU."""
        count = math.prod(shape)
        counters = np.zeros((4, count), dtype=np.uint64)
        counters[0] = self._drawn
        counters[2] = np.arange(count, dtype=np.uint64)
        self._drawn += 1
        x, y = philox(counters, self._key)[:2]
        radius = np.sqrt(-2 * np.log(x * _UNIT + _UNIT / 2))
        numbers = radius * np.sin(y * _TURN + _TURN / 2)
        return torch.from_numpy(numbers.astype(np.float32)).reshape(tuple(shape))


def philox(counters: Words, key: tuple[int, int]) -> Words:
    """Four random words for each column of counters (4, n), by Philox 4x32 of ten rounds."""
    words = counters
    for number in range(_ROUNDS):
        keys = [
            np.uint64((part + number * step) & 0xFFFF_FFFF)
            for part, step in zip(key, _WEYL, strict=True)
        ]
        first, second = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = np.stack(
            [
                (second >> _HALF) ^ words[1] ^ keys[0],
                second & _LOW,
                (first >> _HALF) ^ words[3] ^ keys[1],
                first & _LOW,
            ]
        )
    return words
