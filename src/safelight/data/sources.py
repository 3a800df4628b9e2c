"""What pictures are conditioned on beside their captions: one picture's inputs, as tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from safelight.conditioners.beside import laid_out
from safelight.config import Value, near
from safelight.data.boxes import as_cut, boxes_of
from safelight.data.companions import Companions
from safelight.data.folders import PictureFolder, PictureItem
from safelight.data.masks import draw_mask
from safelight.errors import SafelightError
from safelight.pictures import Levels, Size, to_pixels
from safelight.types import Inputs


class Cut(NamedTuple):
    """One cut of a picture: its index, its shape, whether it is mirrored, and its background."""

    item: int
    bucket: Size
    flip: bool
    background: int


Source = Callable[[Sequence[Cut], Sequence[torch.Generator]], Inputs]
"""The inputs of the pictures of a batch; what is random is from each one's own generator."""

One = Callable[[Cut, torch.Generator], Inputs]
"""The inputs of one picture, without the batch's axis."""


@dataclass(frozen=True)
class Each:
    """What gives the inputs of one picture, for batches."""

    one: One

    def __call__(self, cuts: Sequence[Cut], random: Sequence[torch.Generator]) -> Inputs:
        """Those of each, joined."""
        rows = [self.one(cut, generator) for cut, generator in zip(cuts, random, strict=True)]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))


@dataclass(frozen=True)
class Pictures:
    """A second picture for each, (3, h, w) in [-1, 1]; `shrink` times smaller."""

    companions: Companions
    shrink: int = 1

    def __call__(self, cut: Cut, random: torch.Generator) -> Inputs:
        """One picture."""
        levels = self.companions.of(*cut)
        return (_pixels(levels if self.shrink == 1 else shrunk(levels, self.shrink)),)


@dataclass(frozen=True)
class Masked:
    """A mask drawn at random, (1, h, w), and the whole picture, (3, h, w) in [-1, 1]."""

    companions: Companions

    def __call__(self, cut: Cut, random: torch.Generator) -> Inputs:
        """Another mask each time."""
        pixels = _pixels(self.companions.of(*cut))
        return draw_mask((cut.bucket[1], cut.bucket[0]), random), pixels


class Classes:
    """The number of each picture's class, int64, which the metadata names in `column`."""

    def __init__(self, pictures: PictureFolder, column: str, names: Sequence[str]):
        """Raises `SafelightError` for a picture without a class, or of an unknown one."""
        numbers = {name: number for number, name in enumerate(names)}
        self._numbers: list[int] = []
        for item in pictures.items:
            name = class_of(item, column)
            if name not in numbers:
                raise SafelightError(f"{item.path}: no class {name!r}. {near(name, numbers)}")
            self._numbers.append(numbers[name])

    def __call__(self, cut: Cut, random: torch.Generator) -> Inputs:
        """One number."""
        return (torch.tensor(self._numbers[cut.item]),)


class Layouts:
    """The boxes of each picture, of the first `most`: the tokens of their labels, int64 (most, l),
    their edges as parts of the cut, (most, 4), and which are there, (most,).
    """

    def __init__(
        self,
        pictures: PictureFolder,
        column: str,
        most: int,
        encode: Callable[[Sequence[str]], Int64[Tensor, "n l"]],
    ):
        """Raises `SafelightError` for a picture whose metadata names no boxes."""
        self._sizes = [item.size for item in pictures.items]
        self._boxes = [boxes_of(item, column)[:most] for item in pictures.items]
        labels = sorted({box.label for boxes in self._boxes for box in boxes} | {""})
        self._ids: Mapping[str, Tensor] = dict(zip(labels, encode(labels), strict=True))
        self._most = most

    def __call__(self, cut: Cut, random: torch.Generator) -> Inputs:
        """Boxes that the cut leaves out are not there."""
        size = self._sizes[cut.item]
        shown = as_cut(self._boxes[cut.item], size, cut.bucket, flip=cut.flip)
        return laid_out(shown, self._most, self._ids)


class Vectors:
    """The embedding of each picture's cut by a network; computed once, a batch at a time."""

    def __init__(
        self,
        companions: Companions,
        embed: Callable[[Sequence[Image.Image]], Float[Tensor, "n ..."]],
    ):
        self._companions = companions
        self._embed = embed
        self._known: dict[Cut, Tensor] = {}

    def __call__(self, cuts: Sequence[Cut], random: Sequence[torch.Generator]) -> Inputs:
        """One embedding for each."""
        new = [cut for cut in dict.fromkeys(cuts) if cut not in self._known]
        if new:
            found = self._embed([Image.fromarray(self._companions.of(*cut)) for cut in new])
            self._known |= dict(zip(new, found.cpu(), strict=True))
        return (torch.stack([self._known[cut] for cut in cuts]),)


def class_of(item: PictureItem, column: str) -> str:
    """The class that a picture's metadata names; `SafelightError` if there is none."""
    name: Value = item.extras.get(column)
    if not isinstance(name, (str, int)) or isinstance(name, bool):
        raise SafelightError(
            f"{item.path} has no {column!r} in its metadata; expected the name of its class."
        )
    return str(name)


def shrunk(levels: Levels, factor: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A picture so many times smaller, by the mean of what falls together, as cameras do."""
    height, width = levels.shape[0] // factor, levels.shape[1] // factor
    return np.asarray(Image.fromarray(levels).resize((width, height), Image.Resampling.BOX))


def _pixels(levels: Levels) -> Float[Tensor, "3 h w"]:
    return to_pixels(Image.fromarray(levels))
