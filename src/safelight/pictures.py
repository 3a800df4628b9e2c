"""Picture files to upright RGB pictures, whatever the format: the one place that decodes."""

import functools
import io
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, ImageFile
from torch import Tensor

from safelight.errors import SafelightError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".jp2", ".j2k", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi"}
)
"""Endings (in lower case) of files that are taken for pictures."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

WHITE: Colour = (255, 255, 255)

Size = tuple[int, int]
"""Width and height in pixels, as Pillow orders them."""

Levels = UInt8[np.ndarray, "h w c"]
"""A picture as bytes, RGB or RGBA."""


class UnreadablePictureError(SafelightError):
    """A file that cannot be read as a picture; `reason` says why, without the path."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"Cannot read {path}: {reason}.")
        self.path = path
        self.reason = reason


def load_picture(path: Path | str, background: Colour = WHITE) -> Image.Image:
    """An upright RGB picture in sRGB, transparent parts laid over `background`.

    EXIF orientation and colour profiles are applied; of an animation it is the first frame; 16-bit,
    palette, grey and CMYK pictures are converted.

    Raises `UnreadablePictureError` (a `SafelightError`) for a damaged, truncated or oversized file.
    """
    return flatten(decode(Path(path)), background)


def decode(path: Path, cover: Size | None = None) -> Image.Image:
    """An upright picture in sRGB, "RGBA" if some pixel is transparent and else "RGB".

    With `cover` it is shrunk, never enlarged, to the least size that still covers that width and
    height; a JPEG is then decoded at a fraction of its size, which for a phone's picture is many
    times faster.

    Raises `UnreadablePictureError`.
    """
    with _reading(path), Image.open(path) as image:
        if cover is not None:
            image.draft(None, covering(image.size, turned(image, cover)))
        return upright(image, cover)


def decode_bytes(content: bytes, name: str, formats: tuple[str, ...]) -> Image.Image:
    """As `decode`, of a file's bytes in one of Pillow's `formats`; `name` stands for its path in
    errors.
    """
    with _readable(Path(name)), Image.open(io.BytesIO(content), formats=formats) as image:
        return upright(image)


def upright(image: ImageFile.ImageFile, cover: Size | None = None) -> Image.Image:
    """The frame at which an open file stands, as `decode` gives it."""
    picture = _plain_mode(image)
    if cover is not None:
        picture = _shrink(picture, turned(image, cover))
    picture = _without_idle_alpha(_to_srgb(picture, image.info.get("icc_profile")))
    turn = _TURNS.get(_orientation(image))
    return picture if turn is None else picture.transpose(turn)


def turned(image: ImageFile.ImageFile, size: Size) -> Size:
    """A size as it is before an open file's picture is turned upright; or the other way round."""
    return (size[1], size[0]) if _orientation(image) in (5, 6, 7, 8) else size


def upright_size(path: Path) -> Size:
    """The size that `decode` would give, from the header alone where the file's end is in order.

    A file that does not end as its format should is decoded whole, to tell a cut one from one with
    something appended.

    Raises `UnreadablePictureError`.
    """
    with _reading(path), Image.open(path) as image:
        size = turned(image, image.size)
        if not _ends_well(path, image.format):
            _plain_mode(image)
        return size


def flatten(picture: Image.Image, background: Colour) -> Image.Image:
    """An "RGBA" picture laid over a colour; an "RGB" picture as it is."""
    if picture.mode != "RGBA":
        return picture
    ground = Image.new("RGB", picture.size, background)
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground


def covering(size: Size, cover: Size) -> Size:
    """The least size of the same aspect as `size`, and no larger, that covers `cover`."""
    scale = max(cover[0] / size[0], cover[1] / size[1])
    if scale >= 1:
        return size
    return max(cover[0], round(size[0] * scale)), max(cover[1], round(size[1] * scale))


def to_pixels(image: Image.Image) -> Float[Tensor, "3 h w"]:
    """An RGB picture as float32 pixels (3, h, w) in [-1, 1]."""
    return stack_pixels([np.array(image.convert("RGB"))])[0]


def stack_pixels(rows: Sequence[Levels]) -> Float[Tensor, "b 3 h w"]:
    """RGB pictures of one size as float32 pixels in [-1, 1]."""
    levels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)  # (b, 3, h, w)
    return levels.contiguous().float().div_(127.5).sub_(1)


def to_image(pixels: Float[Tensor, "3 h w"]) -> Image.Image:
    """Pixels (3, h, w) as an RGB picture, clipped to [-1, 1]: the inverse of `to_pixels`."""
    levels = pixels.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return Image.fromarray(levels.permute(1, 2, 0).to("cpu", torch.uint8).contiguous().numpy())


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112


@contextmanager
def _reading(path: Path) -> Generator[None]:
    with _readable(path):
        if path.stat().st_size == 0:
            raise UnreadablePictureError(path, "the file is empty")
        yield


@contextmanager
def _readable(path: Path) -> Generator[None]:
    try:
        yield
    except UnreadablePictureError:
        raise
    except Exception as error:  # decoders raise anything at all on hostile bytes
        raise UnreadablePictureError(path, why_unreadable(path, error)) from error


def why_unreadable(path: Path, error: Exception) -> str:
    """What a decoder's error means, without the path."""
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; shrink it first"
    if isinstance(error, Image.UnidentifiedImageError):
        if path.suffix.lower() in (".heic", ".heif"):
            return "HEIC is not read; save it as JPEG"
        return "it is not a picture, or of no known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    first_line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"it is damaged ({first_line.rstrip('.')})"


def _orientation(image: ImageFile.ImageFile) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole file to look for EXIF behind the pixels
    if image.format == "TIFF":
        return 1  # Pillow turns it by itself
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block does not make the picture unreadable
        return 1


def _ends_well(path: Path, file_format: str | None) -> bool:
    with path.open("rb") as file:
        head = file.read(8)
        length = file.seek(0, io.SEEK_END)
        file.seek(max(0, length - 64))
        tail = file.read()
    if file_format in ("JPEG", "MPO"):
        return tail.rstrip(b"\0").endswith(b"\xff\xd9")
    if file_format == "PNG":
        return tail.endswith(b"IEND\xaeB`\x82")
    if file_format == "WEBP":
        return length >= 8 + int.from_bytes(head[4:], "little")
    return False


def _plain_mode(image: Image.Image) -> Image.Image:
    """Decodes to one of the modes that can be resized and colour-managed: RGB, RGBA, CMYK."""
    image.load()
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow's own conversion would clip
        levels = np.asarray(image).astype(np.int64).clip(0, 0xFFFF)
        return Image.fromarray((levels / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pictures are not read; save it with 8 or 16 bits")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("RGB", "CMYK") else image.convert("RGB")


def _shrink(picture: Image.Image, cover: Size) -> Image.Image:
    size = covering(picture.size, cover)
    if size == picture.size:
        return picture
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    target = "RGBA" if picture.mode == "RGBA" else "RGB"
    if profile:
        try:
            transform = _srgb_transform(profile, picture.mode, target)
            return ImageCms.applyTransform(picture, transform) or picture
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # an unusable profile does not make the picture unreadable
    return picture.convert(target)


def _without_idle_alpha(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255):
        return picture.convert("RGB")
    return picture


@functools.lru_cache(maxsize=8)
def _srgb_transform(
    profile: bytes, source_mode: str, target_mode: str
) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")  # pyright: ignore[reportUnknownVariableType]
    return ImageCms.buildTransform(
        source,
        srgb,  # pyright: ignore[reportUnknownArgumentType]
        source_mode,
        target_mode,
    )
