"""Which pictures a training sees, and how they are cut."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import ImageColor

from safelight.errors import SafelightError
from safelight.pictures import Colour


@dataclass(frozen=True)
class FolderConfig:
    """One folder of pictures; each picture is seen `repeats` times in an epoch."""

    path: Path
    repeats: int = 1

    def __post_init__(self):
        _require(self.repeats >= 1, f"repeats should be at least 1, got {self.repeats}.")


@dataclass(frozen=True)
class DataConfig:
    """The pictures of a training, their size in pixels, and how they vary from epoch to epoch.

    `size` is the side of the square, or with `buckets` the side of the square whose area every
    bucket keeps to, with sides that are multiples of `multiple` and an aspect of at most
    `max_aspect`. A picture is first enlarged by a log-uniform factor in [1, `zoom`], then cut at
    the centre or at random. Latent caches cut at the centre without zoom, and hold every flip and
    background.

    `backgrounds` are CSS colours ("white", "#808080"), of which one is drawn per picture and epoch
    and laid under transparent pictures. `caption_dropout` is the probability of an empty caption;
    an objective that drops captions itself wants 0 here. Pictures with a side below `min_side`
    pixels are left out. Decoded pictures are kept in memory up to `cache_bytes`.

    Raises `SafelightError` for a value out of range.
    """

    folders: tuple[FolderConfig, ...]
    size: int = 64
    buckets: bool = False
    multiple: int = 64
    max_aspect: float = 2.0
    crop: Literal["center", "random"] = "center"
    zoom: float = 1.0
    flip: bool = False
    backgrounds: tuple[str, ...] = ("white",)
    caption_dropout: float = 0.0
    min_side: int = 0
    seed: int = 0
    cache_bytes: int = 1 << 30

    def __post_init__(self):
        _require(len(self.folders) > 0, "folders should name at least one folder of pictures.")
        _require(self.size >= 1, f"size should be at least 1 pixel, got {self.size}.")
        _require(
            1 <= self.multiple <= self.size or not self.buckets,
            f"multiple should be between 1 and size = {self.size}, got {self.multiple}.",
        )
        for name, least in (("max_aspect", 1), ("zoom", 1), ("min_side", 0), ("cache_bytes", 0)):
            value = getattr(self, name)
            _require(least <= value < math.inf, f"{name} should be at least {least}, got {value}.")
        _require(
            0 <= self.caption_dropout <= 1,
            f"caption_dropout should be between 0 and 1, got {self.caption_dropout}.",
        )
        _require(len(self.backgrounds) > 0, "backgrounds should name at least one colour.")
        _ = self.colours

    @property
    def colours(self) -> tuple[Colour, ...]:
        """The backgrounds as red, green and blue."""
        return tuple(parse_colour(name) for name in self.backgrounds)


def parse_colour(name: str) -> Colour:
    """A CSS colour name or hexadecimal code; `SafelightError` if it is neither."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError as error:
        message = f'{name!r} is not a colour; write a CSS name or a code such as "#808080".'
        raise SafelightError(message) from error
    return red, green, blue


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise SafelightError(message)
