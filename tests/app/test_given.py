"""`--image` and its kin: a picture from a picture, its manifest, and the same picture again."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from safelight.app.cli import main
from safelight.checkpoints.folder import write_folder
from safelight.models.unet import UNet
from tiny_model import tiny_folder


@pytest.fixture
def photo(tmp_path):
    """A picture of 26 x 35 pixels, no multiple of the tiny model's factor 4."""
    levels = np.random.default_rng(4).integers(0, 255, (35, 26, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def _make(model, into, *options):
    fixed = ["--model", str(model), "--device", "cpu", "--steps", "4", "-o", str(into)]
    assert main(["generate", "a red cube", *fixed, *options]) == 0
    return np.asarray(Image.open(into))


def _shown(path, capsys):
    capsys.readouterr()
    assert main(["show", str(path)]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_picture_from_a_picture_comes_again(model_folder, photo, tmp_path, capsys):
    made = _make(model_folder, tmp_path / "a.png", "--image", str(photo), "--strength", "0.5")
    assert made.shape == (32, 24, 3)
    told = _shown(tmp_path / "a.png", capsys)
    assert (told["given"]["image"]["file"], told["strength"]) == (str(photo), 0.5)
    assert main(["rerun", str(tmp_path / "a.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "a-rerun.png")) == made).all()
    stronger = _make(model_folder, tmp_path / "b.png", "--image", str(photo), "--strength", "1")
    assert (stronger != made).any()


def test_another_picture_in_its_place_is_told(model_folder, photo, tmp_path, capsys):
    _make(model_folder, tmp_path / "a.png", "--image", str(photo))
    Image.new("RGB", (26, 35), "red").save(photo)
    assert main(["rerun", str(tmp_path / "a.png")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"safelight: {photo} is not the image that was given then")
    photo.unlink()
    assert main(["rerun", str(tmp_path / "a.png")]) == 2


def test_an_inpainting_model_takes_its_mask_from_a_file(photo, tmp_path, capsys):
    folder = tiny_folder()
    unet = UNet(dataclasses.replace(folder.unet.config, in_channels=9)).eval()
    write_folder(tmp_path / "model", dataclasses.replace(folder, unet=unet))
    mask = Image.new("L", (26, 35), 0)
    mask.paste(255, (4, 4, 20, 20))
    mask.save(tmp_path / "mask.png")
    options = ["--image", str(photo), "--mask", str(tmp_path / "mask.png")]
    made = _make(tmp_path / "model", tmp_path / "a.png", *options)
    assert main(["rerun", str(tmp_path / "a.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "a-rerun.png")) == made).all()
    mask.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(tmp_path / "mask.png")
    other = _make(tmp_path / "model", tmp_path / "b.png", *options)
    assert (other != made).any()
    fixed = ["generate", "a red cube", "--model", str(tmp_path / "model"), "--device", "cpu"]
    assert main([*fixed, "--image", str(photo)]) == 2
    assert "it lacks a mask" in capsys.readouterr().err


def test_a_refined_picture_comes_again(model_folder, tmp_path, capsys):
    write_folder(tmp_path / "second", tiny_folder(seed=5))
    options = ["--refiner", str(tmp_path / "second"), "--refine-at", "0.5"]
    plain = _make(model_folder, tmp_path / "plain.png")
    made = _make(model_folder, tmp_path / "a.png", *options)
    assert (made != plain).any()
    assert _shown(tmp_path / "a.png", capsys)["refiner"]["at"] == 0.5
    assert main(["rerun", str(tmp_path / "a.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "a-rerun.png")) == made).all()
    fixed = ["generate", "a red cube", "--model", str(model_folder), "--refine-at", "0.5"]
    assert main(fixed) == 2
    assert "give a refiner too" in capsys.readouterr().err
    write_folder(tmp_path / "second", tiny_folder(seed=6))
    assert main(["rerun", str(tmp_path / "a.png")]) == 2
    assert "are not those that made the picture" in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_a_line(model_folder, tmp_path, capsys):
    (tmp_path / "photo.png").write_bytes(b"no picture")
    fixed = ["generate", "a", "--model", str(model_folder), "-o", str(tmp_path / "a.png")]
    assert main([*fixed, "--image", str(tmp_path / "photo.png")]) == 2
    assert str(tmp_path / "photo.png") in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_a_mask_keeps_the_rest_and_the_picture_comes_again(model_folder, photo, tmp_path, capsys):
    mask = np.zeros((35, 26), dtype=np.uint8)
    mask[10:20, 5:15] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = ("--image", str(photo), "--mask", str(tmp_path / "mask.png"), "--mask-blur", "2")
    made = _make(model_folder, tmp_path / "a.png", *options)
    assert (made[mask == 0] == np.asarray(Image.open(photo))[mask == 0]).all()
    assert (made != np.asarray(Image.open(photo))).any()
    told = _shown(tmp_path / "a.png", capsys)
    assert (told["mask_blur"], told["strength"], told["width"]) == (2, 1.0, 26)
    assert main(["rerun", str(tmp_path / "a.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "a-rerun.png")) == made).all()


def test_a_mask_that_leaves_nothing_to_make_is_told(model_folder, photo, tmp_path, capsys):
    mask = tmp_path / "mask.png"
    Image.new("L", (26, 35), 127).save(mask)
    options = ["--model", str(model_folder), "--image", str(photo), "--mask", str(mask)]
    assert main(["generate", "a red cube", *options]) == 2
    assert "The mask is black, so that nothing would be made anew" in capsys.readouterr().err


def test_margins_and_a_second_pass_come_again(model_folder, photo, tmp_path, capsys):
    wide = ("--image", str(photo), "--outpaint", "left=3,bottom=5")
    large = ("--hires", "1.5", "--hires-strength", "0.5", "--hires-upscaler", "lanczos")
    for name, options, shape in (("a", wide, (40, 29, 3)), ("b", large, (48, 48, 3))):
        made = _make(model_folder, tmp_path / f"{name}.png", *options)
        assert made.shape == shape
        assert main(["rerun", str(tmp_path / f"{name}.png")]) == 0
        assert (np.asarray(Image.open(tmp_path / f"{name}-rerun.png")) == made).all()
    assert _shown(tmp_path / "a.png", capsys)["outpaint"]["bottom"] == 5
    assert _shown(tmp_path / "b.png", capsys)["hires"]["steps"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wide", "a number of pixels"),
        ("left=", "a number of pixels"),
        ("lef=3", "no side 'lef'.*left"),
        ("0", "one above 0"),
    ],
)
def test_margins_that_are_none(model_folder, photo, tmp_path, text, message, capsys):
    options = ["--image", str(photo), "--outpaint", text, "-o", str(tmp_path / "a.png")]
    assert main(["generate", "a", "--model", str(model_folder), *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "a.png").exists()


def test_what_is_begun_from_under_a_mask_comes_again(model_folder, photo, tmp_path, capsys):
    mask = tmp_path / "mask.png"
    Image.new("L", (26, 35), "white").save(mask)
    begun = ["--image", str(photo), "--mask", str(mask), "--strength", "0.5"]
    own = _make(model_folder, tmp_path / "a.png", *begun)
    filled = _make(model_folder, tmp_path / "b.png", *begun, "--mask-fill", "noise")
    assert (own != filled).any()
    assert _shown(tmp_path / "b.png", capsys)["mask_fill"] == "noise"
    assert main(["rerun", str(tmp_path / "b.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "b-rerun.png")) == filled).all()
    fixed = ["--model", str(model_folder), "--device", "cpu", "-o", str(tmp_path / "c.png")]
    assert main(["generate", "x", *fixed, "--mask-fill", "noise"]) == 2
    assert "needs a mask" in capsys.readouterr().err
