"""Pictures that clients send: measured before they are decoded, and kept as plain PNG."""

import base64
import binascii
import io
from pathlib import Path

from PIL import Image

from safelight.app.server.config import Limits
from safelight.errors import SafelightError
from safelight.pictures import UnreadablePictureError, decode_bytes

_FORMATS = ("PNG", "JPEG", "WEBP")
_ONE_FRAME = ("PNG", "WEBP")  # a JPEG's other frames are a camera's previews
_MOST_SIDE = 32768


def from_base64(text: str, what: str) -> bytes:
    """The bytes of base64, also behind the head of a data: URL; `SafelightError` for other text."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise SafelightError(f"The {what} is a data: URL without base64.")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SafelightError(f"The {what} is not base64: {error}.") from error


def opened(content: bytes, what: str, limits: Limits) -> Image.Image:
    """An upright picture in sRGB, "RGB" or "RGBA".

    Raises `SafelightError` for what is no PNG, JPEG or WebP, is damaged, moves, or has more pixels
    than may be; that is seen in its header, before anything is decoded.
    """
    check_header(content, what, limits)
    try:
        return decode_bytes(content, what, _FORMATS)
    except UnreadablePictureError as error:
        raise SafelightError(f"The {what} cannot be read: {error.reason}.") from error


def opened_depth(content: bytes, what: str, limits: Limits) -> Image.Image:
    """The same for a depth map, which may have 16 bits."""
    picture = opened(content, what, limits)
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        if image.mode.startswith("I"):
            return image.convert("I")
    return picture


def check_header(content: bytes, what: str, limits: Limits) -> None:
    """Raises `SafelightError` for a file that is not to be decoded."""
    canvas = _webp_canvas(content)
    if canvas is not None:  # Pillow makes room for a WebP's canvas as it opens it
        _check_size(canvas, what, limits)
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _check_size(image.size, what, limits)
            moves = image.format in _ONE_FRAME and bool(getattr(image, "is_animated", False))
    except SafelightError:
        raise
    except Exception as error:  # decoders raise anything at all on hostile bytes
        raise SafelightError(
            f"The {what} is no picture that is read here; send PNG, JPEG or WebP."
        ) from error
    if moves:
        raise SafelightError(f"The {what} has several frames; send one.")


def png(image: Image.Image) -> bytes:
    """A picture as PNG, made quickly rather than small."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def reopened(content: bytes) -> Image.Image:
    """A picture that `png` made."""
    image = Image.open(io.BytesIO(content), formats=("PNG",))
    image.load()
    return image


def _check_size(size: tuple[int, int], what: str, limits: Limits) -> None:
    width, height = size
    if width * height > limits.given_pixels or max(size) > _MOST_SIDE:
        raise SafelightError(
            f"The {what} has {width} x {height} pixels, and {limits.given_pixels} are the most; "
            "send a smaller one."
        )


def _webp_canvas(content: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP's first chunk names; None for another file."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    kind, body = content[12:16], content[20:30]
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = (int.from_bytes(body[i : i + 2], "little") & 0x3FFF for i in (6, 8))
        return width, height
    return None


def suffix_of(name: str) -> str:
    """The suffix of a picture's format: "jpeg" is ".jpg"."""
    return Path("x").with_suffix(".jpg" if name == "jpeg" else f".{name}").suffix
