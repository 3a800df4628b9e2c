"""Real pictures in memory, with what a model is asked for to make their like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safelight.data.buckets import View, cut
from safelight.data.config import WHITE, Colour
from safelight.data.folders import PictureItem, scan
from safelight.data.pictures import decode, stack_pixels


@dataclass(frozen=True)
class PictureSet:
    """Pictures in [-1, 1] of one size, and where each comes from."""

    pixels: Float[Tensor, "n 3 h w"]
    items: tuple[PictureItem, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """Each picture's first caption."""
        return tuple(item.captions[0] for item in self.items)

    def take(self, places: Sequence[int]) -> "PictureSet":
        """The pictures at these places."""
        return PictureSet(self.pixels[list(places)], tuple(self.items[place] for place in places))

    def sample(self, count: int, seed: int = 0) -> "PictureSet":
        """At most `count` pictures, drawn without replacement."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(self.items), generator=generator)[:count]
        return self.take(sorted(int(place) for place in drawn))


def read_pictures(
    folder: Path,
    size: int,
    *,
    background: Colour = WHITE,
    keep: Callable[[PictureItem], bool] = lambda item: True,
    most: int | None = None,
    seed: int = 0,
) -> PictureSet:
    """Reads the pictures of a folder, cut at the centre to size x size as training cuts them.

    `keep` chooses among them before they are read, and at most `most` of the rest are drawn by
    `seed`. Raises `SafelightError` as `scan` does.
    """
    items = [item for item in scan(folder).items if keep(item)]
    if most is not None and most < len(items):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(items), generator=generator)[:most]
        items = [items[place] for place in sorted(int(place) for place in drawn)]
    bucket = (size, size)
    rows = [cut(np.array(decode(item.path, bucket)), bucket, View(), background) for item in items]
    pixels = stack_pixels(rows) if rows else torch.zeros(0, 3, size, size)
    return PictureSet(pixels, tuple(items))
