"""Pictures that a user gives beside the prompt: to start from, to keep, to go by."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from safelight.errors import SafelightError

Part = Literal["image", "mask", "depth"]
PARTS: tuple[Part, ...] = ("image", "mask", "depth")  # as the fields of `Given`

WHITE_FROM = 128
"""The level of a mask from which up it is white."""


@dataclass(frozen=True)
class GivenPicture:
    """A picture and where it came from.

    Attributes:
        picture: RGB for an image, "L" for a mask (white is made anew), "F" for a depth map (more
            is nearer).
        file: its absolute path; None for one made in memory.
        sha256: of its size and pixels.
    """

    picture: Image.Image
    file: str | None
    sha256: str


@dataclass(frozen=True)
class Given:
    """The pictures beside a prompt."""

    image: GivenPicture | None = None
    mask: GivenPicture | None = None
    depth: GivenPicture | None = None

    def __post_init__(self):
        """Raises `SafelightError` for a mask that leaves nothing to make."""
        if self.mask is not None and max(self.mask.picture.tobytes()) < WHITE_FROM:
            raise SafelightError(
                "The mask is black, so that nothing would be made anew; paint white what should be."
            )

    @property
    def parts(self) -> dict[Part, GivenPicture]:
        """Those that are there."""
        pictures: dict[Part, GivenPicture | None] = {
            "image": self.image,
            "mask": self.mask,
            "depth": self.depth,
        }
        return {part: picture for part, picture in pictures.items() if picture is not None}


NOTHING = Given()


def give(part: Part, source: str | Path | Image.Image | None) -> GivenPicture | None:
    """A picture from a file or from memory; `SafelightError` if it cannot be read."""
    if source is None:
        return None
    if isinstance(source, Image.Image):
        return _given(_plain(part, source), None)
    from safelight.pictures import load_picture  # which imports torch
    from safelight.pipelines.picture_files import open_picture

    path = Path(source)
    if part == "image":
        return _given(load_picture(path), path)
    with open_picture(path) as picture:
        return _given(_plain(part, ImageOps.exif_transpose(picture)), path)


def _given(picture: Image.Image, path: Path | None) -> GivenPicture:
    digest = hashlib.sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes())
    return GivenPicture(picture, None if path is None else str(path.absolute()), digest.hexdigest())


def _plain(part: Part, picture: Image.Image) -> Image.Image:
    if part == "image":
        from safelight.pictures import WHITE, flatten

        return flatten(picture.convert("RGBA"), WHITE)
    if part == "mask":
        return picture.convert("L")
    if picture.mode.startswith("I"):  # 16 bits or more
        return picture.convert("I").convert("F")
    if picture.mode == "F":
        return picture
    return picture.convert("L").convert("F")


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture of that width and height, by Lanczos as in diffusers; itself if it is."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def size_for(given: GivenPicture, factor: int) -> tuple[int, int]:
    """Its width and height, each cut to a multiple of `factor`.

    Raises `SafelightError` for a picture that is smaller than that.
    """
    width, height = (side // factor * factor for side in given.picture.size)
    if not width or not height:
        raise SafelightError(
            f"A picture of {given.picture.size[0]} x {given.picture.size[1]} pixels is too small "
            f"for this model, whose sizes are multiples of {factor}."
        )
    return width, height
