"""Pictures written whole or not at all, with what made them inside, and that read back."""

import io
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from safelight.checkpoints.atomic import replacing_file
from safelight.errors import SafelightError
from safelight.pipelines.manifest import Manifest

_KEYWORD = "safelight"
_PARAMETERS = "parameters"  # where AUTOMATIC1111's web UI writes into a PNG
_ASCII = b"ASCII\0\0\0"  # how Exif marks the encoding of a user comment
_UNICODE = b"UNICODE\0"


@dataclass(frozen=True)
class Texts:
    """What a picture's file says of its making; None where it does not."""

    manifest: str | None  # JSON
    infotext: str | None = None  # see `safelight.pipelines.infotext`


def write_picture(
    path: Path, image: Image.Image, manifest: Manifest, infotext: str | None = None
) -> None:
    """Writes an RGB picture and its manifest; the file appears whole or not at all.

    The suffix chooses the format: `.png` and `.webp` keep every pixel, `.jpg` and `.jpeg` do not.
    The manifest is an iTXt chunk of a PNG and the Exif user comment of the others. An infotext is
    where AUTOMATIC1111's web UI writes it: the chunk `parameters` of a PNG, and the Exif user
    comment of the others, whose manifest is then the image description. A file that was there is
    replaced.

    Raises `SafelightError` for another suffix, or if the file cannot be written.
    """
    write_with_texts(path, image, Texts(manifest.to_json(), infotext))


def write_with_texts(path: Path, image: Image.Image, texts: Texts) -> None:
    """As `write_picture`, of texts that need not be one manifest's."""
    _write(path, encode_with_texts(path, image, texts))


def encode_picture(
    name: str, image: Image.Image, manifest: Manifest, infotext: str | None = None
) -> bytes:
    """The bytes of the file that `write_picture` would write under such a name; errors as there."""
    return encode_with_texts(Path(name), image, Texts(manifest.to_json(), infotext))


def encode_with_texts(path: Path, image: Image.Image, texts: Texts) -> bytes:
    """As `encode_picture`, of texts that need not be one manifest's."""
    encode = _ENCODERS[picture_suffix(path)]
    try:
        return encode(image, texts)
    except ValueError as error:
        raise SafelightError(
            f"Cannot put the manifest into {path}: {error}; save as .png, which has room."
        ) from error


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
    text = read_texts(path).manifest
    if text is None:
        raise SafelightError(
            f"{path} carries no safelight manifest; it was made by something else, or a program "
            "that saved it again dropped it."
        )
    return Manifest.from_json(text, str(path))


def read_texts(path: Path) -> Texts:
    """What a picture says of its making.

    Raises `SafelightError` if the file is not there or is not a whole picture.
    """
    with open_picture(path) as image:
        return texts_in(image)


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


def _png(image: Image.Image, texts: Texts) -> bytes:
    info = PngImagePlugin.PngInfo()
    for keyword, text in ((_KEYWORD, texts.manifest), (_PARAMETERS, texts.infotext)):
        if text is not None:
            info.add_itxt(keyword, text)
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def _webp(image: Image.Image, texts: Texts) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=True, exif=_exif(texts))
    return stream.getvalue()


def _jpeg(image: Image.Image, texts: Texts) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, exif=_exif(texts))
    return stream.getvalue()


_FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
_ENCODERS: dict[str, Callable[[Image.Image, Texts], bytes]] = {
    ".png": _png,
    ".webp": _webp,
    ".jpg": _jpeg,
    ".jpeg": _jpeg,
}


def _exif(texts: Texts) -> bytes:
    exif = Image.Exif()
    comments = exif.get_ifd(ExifTags.IFD.Exif)
    manifest = None if texts.manifest is None else json.dumps(json.loads(texts.manifest))  # ASCII
    if texts.infotext is not None:
        comments[ExifTags.Base.UserComment] = _UNICODE + texts.infotext.encode("utf-16-be")
        if manifest is not None:
            exif[ExifTags.Base.ImageDescription] = manifest
    elif manifest is not None:
        comments[ExifTags.Base.UserComment] = _ASCII + manifest.encode()
    return exif.tobytes()


def texts_in(image: Image.Image) -> Texts:
    """What an opened picture says of its making; of a PNG that is loaded, whatever stands last."""
    manifest, infotext = (_text(image.info.get(name)) for name in (_KEYWORD, _PARAMETERS))
    remark = image.info.get("comment")  # of a GIF
    if image.format == "GIF" and isinstance(remark, bytes) and remark.startswith(b"{"):
        manifest = remark.decode("utf-8", "replace")
    exif = image.getexif()
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    described = exif.get(ExifTags.Base.ImageDescription)
    if isinstance(comment, bytes) and comment.startswith(_ASCII + b"{"):
        manifest = manifest or comment.removeprefix(_ASCII).decode("ascii", "replace")
    elif isinstance(comment, bytes):
        infotext = infotext or _comment(comment)
        if isinstance(described, str) and described.startswith("{"):
            manifest = manifest or described
    return Texts(manifest, infotext)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _comment(comment: bytes) -> str | None:
    """An Exif user comment by the encoding that it names; those of none are taken for UTF-8."""
    if comment.startswith(_UNICODE):
        text = comment.removeprefix(_UNICODE)
        high, low = text[::2].count(0), text[1::2].count(0)  # most letters are below 256
        decoded = text.decode("utf-16-be" if high >= low else "utf-16-le", "replace")
    else:
        decoded = comment.removeprefix(_ASCII).decode("utf-8", "replace")
    return decoded.removeprefix("\ufeff").rstrip("\0") or None
