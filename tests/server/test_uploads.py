"""Pictures that are sent: their headers are judged before anything is decoded."""

import io
import struct
import zlib

import pytest
from PIL import Image

from safelight.app.server.config import Limits
from safelight.app.server.uploads import from_base64, opened, opened_depth, png, reopened
from safelight.errors import SafelightError

LIMITS = Limits(given_pixels=10_000)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header names a size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_three_kinds_are_read(kind):
    picture = opened(encoded(Image.new("RGB", (20, 10), "red"), kind), "image", LIMITS)
    assert (picture.size, picture.mode) == ((20, 10), "RGB")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "PPM", "ICO"])
def test_other_kinds_are_not(kind):
    with pytest.raises(SafelightError, match="send PNG, JPEG or WebP"):
        opened(encoded(Image.new("RGB", (16, 16)), kind), "image", LIMITS)


@pytest.mark.parametrize("size", [(101, 100), (50_000, 50_000), (40_000, 1)])
def test_a_bomb_is_told_by_its_header(size):
    with pytest.raises(SafelightError, match=r"are the most|no picture that is read"):
        opened(claiming(*size), "image", LIMITS)
    with pytest.raises(SafelightError, match="cannot be read"):  # which is decoded, for it may be
        opened(claiming(100, 100), "image", LIMITS)


def test_a_webp_is_measured_before_pillow_makes_room_for_it(monkeypatch):
    content = encoded(Image.new("RGBA", (200, 100), (1, 2, 3, 4)), "WEBP", lossless=True)
    extended = encoded(Image.new("RGB", (200, 100)), "WEBP", exif=Image.Exif().tobytes() + b"x")
    lossy = encoded(Image.new("RGB", (200, 100)), "WEBP")

    def opens(*_, **__):
        raise AssertionError("opened")

    monkeypatch.setattr("safelight.app.server.uploads.Image.open", opens)
    for one in (content, extended, lossy):
        with pytest.raises(SafelightError, match="200 x 100 pixels"):
            opened(one, "image", LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_moving_picture_is_refused(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(SafelightError, match="several frames"):
        opened(content, "image", LIMITS)


def test_a_cut_file_is_said_to_be_damaged():
    noisy = Image.effect_noise((64, 64), 90).convert("RGB")
    content = encoded(noisy, "PNG")
    with pytest.raises(SafelightError, match="The image cannot be read"):
        opened(content[: len(content) // 2], "image", LIMITS)


def test_pictures_are_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (20, 10)), "JPEG", exif=exif)
    assert opened(content, "image", LIMITS).size == (10, 20)


def test_a_depth_map_keeps_its_levels():
    deep = Image.new("I;16", (8, 8), 12_345)
    assert opened_depth(encoded(deep, "PNG"), "depth", LIMITS).getpixel((0, 0)) == 12_345


def test_base64_comes_plain_or_as_a_url():
    assert from_base64("YWJj", "image") == b"abc"
    assert from_base64("data:image/png;base64,YWJj", "image") == b"abc"
    for text in ("%%", "data:image/png,abc", "data:", "YQ"):
        with pytest.raises(SafelightError):
            from_base64(text, "image")


def test_what_is_kept_comes_back():
    picture = Image.effect_noise((9, 7), 50).convert("RGB")
    assert reopened(png(picture)).tobytes() == picture.tobytes()
