"""Pictures that a stream is given, and gives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from safelight.errors import SafelightError
from safelight.pictures import WHITE, flatten, load_picture

Picture = str | Path | Image.Image | np.ndarray
"""A file, a picture, or RGB bytes (h, w, 3)."""


@dataclass(frozen=True)
class StreamPicture:
    """A picture of a stream.

    Attributes:
        levels: its pixels, RGB, as bytes, which cannot be written into.
        number: of the update that it was begun after; later ones are not all in it yet.
    """

    levels: UInt8[np.ndarray, "h w 3"]
    number: int

    @property
    def image(self) -> Image.Image:
        """The same for Pillow."""
        return Image.fromarray(self.levels)


def rgb(picture: Picture) -> Image.Image:
    """A picture in RGB that nothing else changes.

    Raises `SafelightError` for a file that cannot be read, an array of another shape or type, and
    a picture without pixels.
    """
    if isinstance(picture, np.ndarray):
        return _of_bytes(picture)
    if isinstance(picture, Image.Image):
        if not all(picture.size):
            raise SafelightError("The picture is empty; give one with a pixel or more.")
        if picture.mode == "RGB":
            return picture.copy()
        return flatten(picture.convert("RGBA"), WHITE)
    return load_picture(picture)


def _of_bytes(levels: np.ndarray) -> Image.Image:
    if levels.dtype != np.uint8 or levels.ndim != 3 or levels.shape[2] != 3 or not levels.size:
        raise SafelightError(
            f"An array of a picture should be uint8 of (h, w, 3) with a pixel or more, got "
            f"{levels.dtype} of {levels.shape}; scale it to 0 to 255, and leave out alpha."
        )
    return Image.fromarray(levels.copy())
