import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safelight.errors import SafelightError
from safelight.pipelines.manifest import Manifest, Served, pixel_digest
from safelight.pipelines.picture_files import read_manifest, write_picture

MANIFEST = Manifest(
    prompt='ein roter Apfel 🍎, "quoted"\nand on a second line',
    negative="mush",
    seed=2**64 - 1,
    steps=20,
    scale=3.5,
    sampler="euler",
    width=24,
    height=16,
    model="default",
    weights={"unet": "ab" * 32},
    precision="float32",
    device="cpu",
    machine="x86_64 AVX512",
    threads=2,
    versions={"safelight": "0.1.0", "torch": "2.13.0"},
)


def gradient(width: int = 24, height: int = 16) -> Image.Image:
    image = Image.new("RGB", (width, height))
    image.putdata([(x * 10, y * 15, (x * y) % 256) for y in range(height) for x in range(width)])
    return image


@given(st.text(alphabet=st.characters(codec="utf-8")), st.integers(-(2**63), 2**64 - 1))
def test_json_keeps_every_prompt_and_seed(prompt: str, seed: int):
    manifest = dataclasses.replace(MANIFEST, prompt=prompt, seed=seed)
    assert Manifest.from_json(manifest.to_json(), "x") == manifest


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".JPEG"])
def test_every_format_carries_the_manifest(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    write_picture(path, gradient(), MANIFEST)
    assert read_manifest(path) == MANIFEST


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_lossless_formats_keep_every_pixel(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    write_picture(path, gradient(), MANIFEST)
    with Image.open(path) as image:
        assert image.convert("RGB").tobytes() == gradient().tobytes()


def test_digest_tells_one_changed_pixel_and_the_same_bytes_in_another_shape():
    changed = gradient()
    changed.putpixel((3, 4), (1, 2, 3))
    assert pixel_digest(gradient()) == pixel_digest(gradient())
    assert pixel_digest(changed) != pixel_digest(gradient())


def test_long_prompt_fits_a_png_and_is_refused_for_a_jpeg(tmp_path):
    manifest = dataclasses.replace(MANIFEST, prompt="long " * 20_000)
    write_picture(tmp_path / "long.png", gradient(), manifest)
    assert read_manifest(tmp_path / "long.png") == manifest
    with pytest.raises(SafelightError, match=r"long\.jpg.*\.png"):
        write_picture(tmp_path / "long.jpg", gradient(), manifest)
    assert not (tmp_path / "long.jpg").exists()


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    write_picture(path, gradient(), MANIFEST)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SafelightError, match="No space left"):
        write_picture(path, gradient(48, 48), MANIFEST)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_cut_short_is_named(tmp_path):
    path = tmp_path / "cut.png"
    write_picture(path, gradient(400, 400), MANIFEST)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SafelightError, match=r"cut\.png is not a whole picture"):
        read_manifest(path)


def test_a_text_file_is_not_a_picture(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(SafelightError, match="not a picture"):
        read_manifest(path)


def test_a_foreign_picture_has_no_manifest(tmp_path):
    gradient().save(tmp_path / "other.png")
    with pytest.raises(SafelightError, match="carries no safelight manifest"):
        read_manifest(tmp_path / "other.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"format": None}, "format None"),
        ({"stepz": 3}, "Did you mean 'steps'"),
        ({"steps": "many"}, "steps should be int"),
        ({"threads": 0}, "damaged manifest: threads should lie between 1 and 4096, got 0"),
        ({"threads": 5000}, "threads should lie between 1 and 4096, got 5000"),
    ],
)
def test_a_manifest_of_another_time_or_hand_is_refused(change, message):
    values = json.loads(MANIFEST.to_json()) | change
    with pytest.raises(SafelightError, match=message):
        Manifest.from_json(json.dumps(values), "x.png")


def test_a_manifest_from_before_configurations_were_told_is_read():
    values = json.loads(MANIFEST.to_json())
    del values["configuration"]
    assert Manifest.from_json(json.dumps(values), "x.png") == MANIFEST


def test_a_manifest_from_when_a_server_told_of_mark_and_check_is_read():
    values = json.loads(MANIFEST.to_json())
    values["served"] = {"batch": 2, "watermark": "", "safety": ""}
    made = Manifest.from_json(json.dumps(values), "x.png")
    assert made == dataclasses.replace(MANIFEST, served=Served(batch=2))
    values["served"]["batches"] = 2
    with pytest.raises(SafelightError, match="Did you mean 'batch'"):
        Manifest.from_json(json.dumps(values), "x.png")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_a_damaged_manifest_is_refused(text):
    with pytest.raises(SafelightError, match=r"x\.png holds a damaged manifest"):
        Manifest.from_json(text, "x.png")
