"""Pictures written whole or not at all, with their manifest inside, and the manifest read back."""

import io
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from safelight.checkpoints.atomic import replacing_file
from safelight.errors import SafelightError
from safelight.pipelines.manifest import Manifest

_KEYWORD = "safelight"
_ASCII = b"ASCII\0\0\0"  # how Exif marks the encoding of a user comment


def write_picture(path: Path, image: Image.Image, manifest: Manifest) -> None:
    """Writes an RGB picture and its manifest; the file appears whole or not at all.

    The suffix chooses the format: `.png` and `.webp` keep every pixel, `.jpg` and `.jpeg` do not.
    The manifest is an iTXt chunk of a PNG and the Exif user comment of the others. A file that was
    there is replaced.

    Raises `SafelightError` for another suffix, or if the file cannot be written.
    """
    encode = _ENCODERS[picture_suffix(path)]
    try:
        encoded = encode(image, manifest.to_json())
    except ValueError as error:
        raise SafelightError(
            f"Cannot put the manifest into {path}: {error}; save as .png, which has room."
        ) from error
    _write(path, encoded)


def write_preview(path: Path, image: Image.Image) -> None:
    """Writes a picture on its way, which has no manifest; errors as `write_picture`."""
    stream = io.BytesIO()
    image.save(stream, _FORMATS[picture_suffix(path)])
    _write(path, stream.getvalue())


def _write(path: Path, encoded: bytes) -> None:
    try:
        with replacing_file(path) as part:
            part.write_bytes(encoded)
    except OSError as error:
        raise SafelightError(f"Cannot write {path}: {error.strerror}.") from error


def read_manifest(path: Path) -> Manifest:
    """The manifest inside a picture.

    Raises `SafelightError` if the file is not there, is not a whole picture, or carries no
    manifest.
    """
    with open_picture(path) as image:
        text = _manifest_text(image)
    if text is None:
        raise SafelightError(
            f"{path} carries no safelight manifest; it was made by something else, or a program "
            "that saved it again dropped it."
        )
    return Manifest.from_json(text, str(path))


@contextmanager
def open_picture(path: Path) -> Generator[Image.Image]:
    """The decoded picture of a file; `SafelightError` if it is missing or broken."""
    if path.is_dir():
        raise SafelightError(f"{path} is a folder; give the picture file itself.")
    try:
        with Image.open(path) as image:
            image.load()
            yield image
    except FileNotFoundError:
        raise SafelightError(f"{path} does not exist.") from None
    except UnidentifiedImageError:
        raise SafelightError(f"{path} is not a picture that can be read.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SafelightError(f"{path} is not a whole picture: {error}") from error


def picture_suffix(path: Path) -> str:
    """The lower-case suffix, which must be one that can be written; `SafelightError` otherwise."""
    suffix = path.suffix.lower()
    if suffix not in _ENCODERS:
        raise SafelightError(
            f"Cannot tell the format of {str(path)!r}: end it in {', '.join(_ENCODERS)}, "
            "or give a folder that exists."
        )
    return suffix


def _png(image: Image.Image, manifest: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(_KEYWORD, manifest)
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def _webp(image: Image.Image, manifest: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=True, exif=_exif(manifest))
    return stream.getvalue()


def _jpeg(image: Image.Image, manifest: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, exif=_exif(manifest))
    return stream.getvalue()


_FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
_ENCODERS: dict[str, Callable[[Image.Image, str], bytes]] = {
    ".png": _png,
    ".webp": _webp,
    ".jpg": _jpeg,
    ".jpeg": _jpeg,
}


def _exif(manifest: str) -> bytes:
    escaped = json.dumps(json.loads(manifest))  # pure ASCII
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _ASCII + escaped.encode()
    return exif.tobytes()


def _manifest_text(image: Image.Image) -> str | None:
    text = image.info.get(_KEYWORD)
    if isinstance(text, str):
        return text
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes) and comment.startswith(_ASCII + b"{"):
        return comment.removeprefix(_ASCII).decode("ascii", "replace")
    return None
