import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from safelight.pictures import (
    UnreadablePictureError,
    covering,
    decode,
    load_picture,
    to_image,
    to_pixels,
    upright_size,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters() -> Image.Image:
    """Upright: red and green above, blue and white below; wider than high."""
    image = Image.new("RGB", (48, 32), WHITE)
    image.paste(RED, (0, 0, 24, 16))
    image.paste(GREEN, (24, 0, 48, 16))
    image.paste(BLUE, (0, 16, 24, 32))
    return image


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    w, h = image.size
    places = [
        (w // 4, h // 4),
        (3 * w // 4, h // 4),
        (w // 4, 3 * h // 4),
        (3 * w // 4, 3 * h // 4),
    ]
    return [tuple(255 * (v > 127) for v in image.getpixel(place)) for place in places]


INVERSE_TURNS = {  # how a camera held in each way stores an upright scene
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


@pytest.mark.parametrize("cover", [None, (10, 10)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    tmp_path: Path, orientation: int, suffix: str, cover: tuple[int, int] | None
):
    stored = quarters()
    for turn in INVERSE_TURNS[orientation]:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    stored.save(path, exif=exif)
    picture = decode(path, cover)
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]
    assert upright_size(path) == (48, 32)
    assert picture.size == ((48, 32) if cover is None else (15, 10))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_hide_the_picture(tmp_path: Path):
    path = tmp_path / "exif.jpg"
    quarters().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xffrubbish")
    assert corners(load_picture(path)) == [RED, GREEN, BLUE, WHITE]
    assert upright_size(path) == (48, 32)


def test_transparency_is_laid_over_the_background(tmp_path: Path):
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 51))
    image.save(tmp_path / "a.png")
    picture = load_picture(tmp_path / "a.png", (0, 100, 200))
    assert picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert picture.getpixel((1, 0)) == (51, 80, 160)
    assert picture.getpixel((3, 1)) == (0, 100, 200)


def test_no_colour_bleeds_out_of_transparent_pixels_when_shrunk(tmp_path: Path):
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))  # invisible red
    image.paste((0, 0, 255, 255), (16, 16, 48, 48))
    image.save(tmp_path / "a.png")
    small = np.asarray(decode(tmp_path / "a.png", (16, 16)))
    visible = small[small[..., 3] > 0]
    assert visible[:, 0].max() <= 2
    assert visible[:, 2].min() >= 253


def palette_with_transparency() -> Image.Image:
    image = quarters().quantize(8)
    image.info["transparency"] = image.getpixel((47, 31))
    return image


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_palette_transparency(tmp_path: Path, suffix: str):
    image = palette_with_transparency()
    path = tmp_path / f"p{suffix}"
    image.save(path, transparency=image.info["transparency"])
    assert load_picture(path, (10, 20, 30)).getpixel((47, 31)) == (10, 20, 30)
    assert corners(load_picture(path)) == [RED, GREEN, BLUE, WHITE]


def test_grey_with_alpha_and_single_colour_transparency(tmp_path: Path):
    Image.new("LA", (4, 4), (200, 0)).save(tmp_path / "la.png")
    assert load_picture(tmp_path / "la.png", BLUE).getpixel((1, 1)) == BLUE
    quarters().save(tmp_path / "trns.png", transparency=RED)
    assert load_picture(tmp_path / "trns.png", (9, 9, 9)).getpixel((2, 2)) == (9, 9, 9)


def test_a_fully_opaque_alpha_channel_is_dropped(tmp_path: Path):
    quarters().convert("RGBA").save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").mode == "RGB"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_its_range(tmp_path: Path, suffix: str):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / f"deep{suffix}")
    levels = np.asarray(load_picture(tmp_path / f"deep{suffix}"))
    assert np.array_equal(levels[..., 0].ravel(), np.arange(256))
    assert np.array_equal(levels[..., 0], levels[..., 2])


def test_16_bit_colour_png(tmp_path: Path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    row = b"\0" + struct.pack(">6H", 65535, 32768, 0, 0, 257, 65535)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    assert np.asarray(load_picture(path)).tolist() == [[[255, 128, 0], [0, 1, 255]]]


def test_one_bit_and_grey(tmp_path: Path):
    Image.new("1", (3, 3), 1).save(tmp_path / "one.png")
    assert load_picture(tmp_path / "one.png").getpixel((0, 0)) == WHITE
    Image.new("L", (3, 3), 77).save(tmp_path / "l.jpg", quality=100)
    assert load_picture(tmp_path / "l.jpg").getpixel((0, 0)) == (77, 77, 77)


@pytest.mark.parametrize("cover", [None, (12, 8)])
def test_cmyk_jpeg(tmp_path: Path, cover: tuple[int, int] | None):
    quarters().convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    picture = decode(tmp_path / "print.jpg", cover)
    assert picture.mode == "RGB"
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png"])
def test_of_an_animation_comes_the_first_frame(tmp_path: Path, suffix: str):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    path = tmp_path / f"moving{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert corners(load_picture(path)) == [RED] * 4


def swapped_primaries() -> bytes:
    """An sRGB profile in which red and green have exchanged places."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"swap").replace(b"gXYZ", b"rXYZ").replace(b"swap", b"gXYZ")


def test_colour_profiles_are_brought_to_srgb(tmp_path: Path):
    quarters().save(tmp_path / "p.png", icc_profile=swapped_primaries())
    assert corners(load_picture(tmp_path / "p.png")) == [GREEN, RED, BLUE, WHITE]
    transparent = quarters().convert("RGBA")
    transparent.putpixel((0, 0), (1, 2, 3, 0))
    transparent.save(tmp_path / "pa.png", icc_profile=swapped_primaries())
    assert corners(load_picture(tmp_path / "pa.png")) == [GREEN, RED, BLUE, WHITE]


def test_an_unusable_profile_is_ignored(tmp_path: Path):
    quarters().save(tmp_path / "p.png", icc_profile=b"no profile at all" * 20)
    assert corners(load_picture(tmp_path / "p.png")) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tif"])
def test_truncated_files_are_found_by_both_readers(tmp_path: Path, suffix: str):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = tmp_path / f"whole{suffix}"
    Image.fromarray(noise).save(whole)
    assert upright_size(whole) == (64, 64)
    content = whole.read_bytes()
    for share in (0.2, 0.6, 0.9):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(content[: int(len(content) * share)])
        for read in (upright_size, load_picture):
            with pytest.raises(UnreadablePictureError) as caught:
                read(cut)
            assert str(cut) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_jpeg_with_something_appended_is_whole(tmp_path: Path):
    path = tmp_path / "phone.jpg"
    quarters().save(path)
    path.write_bytes(path.read_bytes() + b"\0\0SEFT trailer of a phone")
    assert upright_size(path) == (48, 32)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]))
def test_bytes_are_a_picture_or_unreadable(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, head: bytes
):
    path = tmp_path_factory.getbasetemp() / "any.jpg"
    path.write_bytes(head + body)
    for read in (upright_size, load_picture):
        try:
            read(path)
        except UnreadablePictureError:
            continue


@given(st.data())
def test_flipped_bytes_in_a_real_file_crash_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]))
    file = io.BytesIO()
    quarters().save(file, kind)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(content)
    with contextlib.suppress(UnreadablePictureError):
        assert load_picture(path).mode == "RGB"


def test_reasons_name_the_remedy(tmp_path: Path):
    heic = tmp_path / "IMG_1.HEIC"
    heic.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(UnreadablePictureError, match="save it as JPEG"):
        load_picture(heic)
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(UnreadablePictureError, match="empty"):
        load_picture(empty)
    with pytest.raises(UnreadablePictureError, match="no such file"):
        load_picture(tmp_path / "gone.png")
    with pytest.raises(UnreadablePictureError, match="is a directory"):
        load_picture(tmp_path)
    deep = tmp_path / "f.tif"
    Image.new("F", (4, 4), 0.5).save(deep)
    with pytest.raises(UnreadablePictureError, match="8 or 16 bits"):
        load_picture(deep)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quarters().save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(UnreadablePictureError, match="more than 1,000 pixels"):
        load_picture(tmp_path / "big.png")


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_large_jpeg_is_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str):
    quarters().resize((1200, 800)).convert(mode).save(tmp_path / "photo.jpg")
    decoded: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def spy(self: Image.Image, *args: object, **options: object) -> Image.Image:
        decoded.append(self.size)
        return resize(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", spy)
    picture = decode(tmp_path / "photo.jpg", (64, 64))
    assert picture.size == (96, 64)
    assert decoded[0] == (150, 100)  # an eighth


@given(*[st.integers(1, 5000)] * 2, *[st.integers(1, 600)] * 2)
def test_covering(width: int, height: int, across: int, down: int):
    small = covering((width, height), (across, down))
    if width < across or height < down:
        assert small == (width, height)
        return
    assert small[0] >= across
    assert small[1] >= down
    assert small[0] <= width
    assert small[1] <= height
    assert across in (small[0], width) or down in (small[1], height)
    # A side is off its true length by rounding, and by the half pixel that the cover may ask for.
    assert (
        abs(small[0] / width - small[1] / height) * max(width, height)
        <= max(width / height, height / width) + 1
    )


@given(st.integers(0, 2**32 - 1))
def test_pixels_and_images_are_inverse(seed: int):
    levels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pixels = to_pixels(Image.fromarray(levels))
    assert pixels.shape == (3, 5, 7)
    assert pixels.dtype == torch.float32
    assert pixels.abs().max() <= 1
    assert np.array_equal(np.asarray(to_image(pixels)), levels)


def test_pixels_outside_the_range_are_clipped():
    pixels = torch.tensor([-3.0, 3.0, 0.0]).reshape(3, 1, 1)
    assert to_image(pixels).getpixel((0, 0)) == (0, 255, 128)
