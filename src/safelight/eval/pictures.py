"""Real pictures in memory, with what a model is asked for to make their like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safelight.data.buckets import View, cut
from safelight.data.folders import PictureItem, Skipped, scan
from safelight.pictures import WHITE, Colour, UnreadablePictureError, decode, stack_pixels


@dataclass(frozen=True)
class PictureSet:
    """Pictures in [-1, 1] of one size, where each comes from, and the files that were left out."""

    pixels: Float[Tensor, "n 3 h w"]
    items: tuple[PictureItem, ...]
    skipped: tuple[Skipped, ...] = ()

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
    `seed`. A damaged picture is left out, and another is drawn in its place. Raises
    `SafelightError` as `scan` does.
    """
    found = scan(folder)
    items = [item for item in found.items if keep(item)]
    order = list(range(len(items)))
    if most is not None and most < len(items):
        generator = torch.Generator().manual_seed(seed)
        order = [int(place) for place in torch.randperm(len(items), generator=generator)]
    bucket = (size, size)
    rows: dict[int, np.ndarray] = {}
    skipped = list(found.skipped)
    for place in order:
        if len(rows) == most:
            break
        try:
            picture = decode(items[place].path, bucket)
        except UnreadablePictureError as error:
            skipped.append(Skipped(error.path, error.reason))
            continue
        rows[place] = cut(np.array(picture), bucket, View(), background)
    places = sorted(rows)
    pixels = stack_pixels([rows[p] for p in places]) if rows else torch.zeros(0, 3, size, size)
    return PictureSet(pixels, tuple(items[place] for place in places), tuple(skipped))
