"""The random choices for one picture in one epoch."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from safelight import rng
from safelight.data.buckets import View
from safelight.data.config import DataConfig
from safelight.data.folders import PictureItem


class Draws:
    """How a picture varies in one epoch: a pure function of (seed, epoch, slot).

    A slot is one of the `repeats` places that a picture has in an epoch, so repeats vary too.
    """

    def __init__(self, config: DataConfig, epoch: int, slot: int):
        self._config = config
        self._place = (epoch, slot)
        self._generator = rng.generator_for(config.seed, _STREAM, epoch, slot)
        uniform = cast(list[float], torch.rand(7, generator=self._generator).tolist())
        self._zoom, self._across, self._down, self._flip = uniform[:4]
        self._background, self._caption, self._drop = uniform[4:]

    def view(self) -> View:
        """Where the picture is cut, and whether it is mirrored."""
        at_random = self._config.crop == "random"
        return View(
            zoom=self._config.zoom**self._zoom,
            across=self._across if at_random else 0.5,
            down=self._down if at_random else 0.5,
            flip=self.flip(),
        )

    def flip(self) -> bool:
        """Whether the picture is mirrored."""
        return self._config.flip and self._flip < 0.5

    def background(self) -> int:
        """The index of the background that lies under the picture."""
        return int(self._background * len(self._config.backgrounds))

    def caption(self, item: PictureItem) -> str:
        """One of the picture's captions, or the empty one."""
        if self._drop < self._config.caption_dropout:
            return ""
        return item.captions[int(self._caption * len(item.captions))]

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise, float32; each call draws anew."""
        return torch.randn(tuple(shape), generator=self._generator)

    def generator(self, number: int) -> torch.Generator:
        """More random numbers of their own, for what goes along with the picture."""
        return rng.generator_for(self._config.seed, _ALONG + number, *self._place)


_STREAM = 3  # of random numbers under the seed; the order of batches has 1 and 2
_ALONG = 16
