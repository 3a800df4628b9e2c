"""Big pictures: tiles of the autoencoder, windows of the U-Net, and the same picture again."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import safelight
from safelight.app.cli import main
from safelight.pipelines.picture_files import read_manifest
from safelight.pipelines.request import Request, Windows

PROMPT = "a red cube"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(model_folder):
    def run(name: str, *options: str) -> np.ndarray:
        fixed = ["--model", str(model_folder), "--device", "cpu", "--steps", "2", "-o", name]
        assert main(["generate", PROMPT, *fixed, *options]) == 0
        return np.asarray(Image.open(name), dtype=np.float32)

    return run


@pytest.mark.parametrize("image", [False, True])
def test_tiles_of_the_autoencoder_are_near_and_come_again(make, image, capsys):
    options = ["--width", "768", "--height", "16"]  # of which a tile has 512
    if image:
        levels = np.random.default_rng(0).integers(0, 255, (16, 768, 3), dtype=np.uint8)
        Image.fromarray(levels).save("photo.png")
        options += ["--image", "photo.png", "--strength", "0.5"]
    plain = make("plain.png", *options)
    tiled = make("tiled.png", *options, "--tiled-decode")
    assert 0 < np.abs(plain - tiled).mean() < 8
    told = [read_manifest(Path(name)).tiled_decode for name in ("plain.png", "tiled.png")]
    assert told == [False, True]
    for name in ("plain.png", "tiled.png"):
        assert main(["rerun", name]) == 0


def test_a_picture_of_one_tile_is_the_same_in_tiles(make):
    assert (make("plain.png") == make("tiled.png", "--tiled-decode")).all()


def test_a_big_picture_is_tiled_unless_it_is_asked_not_to_be(model_folder):
    pipeline = safelight.load(model_folder, device="cpu")
    big = Request(PROMPT, width=8192, height=8192)
    assert pipeline.settle(big).tiled_decode
    assert not pipeline.settle(dataclasses.replace(big, tiled_decode=False)).tiled_decode
    assert not pipeline.settle(Request(PROMPT)).tiled_decode


def test_windows_of_the_network_come_again(make):
    options = ["--width", "72", "--tiled-diffusion", "--tile-size", "24"]
    plain = make("plain.png", *options[:2])
    made = make("made.png", *options)
    less = make("less.png", *options, "--tile-overlap", "4")
    assert (made != plain).any()
    faded = make("faded.png", *options, "--tile-fade")
    assert (made != less).any()
    assert (made != faded).any()
    assert read_manifest(Path("made.png")).windows == Windows(24, 12)
    assert read_manifest(Path("less.png")).windows == Windows(24, 4)
    assert read_manifest(Path("faded.png")).windows == Windows(24, 12, fade=True)
    for name in ("less.png", "faded.png"):
        assert main(["rerun", name]) == 0


def test_a_picture_of_one_window_is_the_same_in_windows(make):
    assert (make("plain.png") == make("windows.png", "--tiled-diffusion")).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tile-size", "24"], "ask for that too"),
        (["--tile-fade"], "ask for that too"),
        (["--tiled-diffusion", "--tile-size", "22"], "nearest: 20 and 24"),
        (["--tiled-diffusion", "--tile-size", "0"], "tile_size should be 1 or more"),
        (["--tiled-diffusion", "--tile-overlap", "32"], "less than tile_size, 32; got 32"),
        (["--tiled-diffusion", "--tile-overlap", "-4"], "0 or more pixels"),
    ],
)
def test_a_mistake_about_windows_is_told_in_a_line(model_folder, options, message, capsys):
    fixed = ["--model", str(model_folder), "--device", "cpu"]
    assert main(["generate", PROMPT, *fixed, *options]) == 2
    assert message in capsys.readouterr().err
