"""`safelight interpolate`: pictures on the way from one prompt, and one seed, to another."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from safelight.app.cli import main
from safelight.pipelines.picture_files import read_manifest
from safelight.pipelines.request import Toward

FIRST, SECOND = "a red cube", "(two:1.3) red apples"


@pytest.fixture
def run(model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fixed = ("--model", str(model_folder), "--device", "cpu", "--steps", "3")
    return lambda *command: main([*command, *fixed])


def _pixels(path):
    return np.asarray(Image.open(path), dtype=int)


@pytest.mark.parametrize("plain", [(), ("--plain-prompt",)])
def test_the_ends_are_the_pictures_of_the_two_prompts_and_seeds(run, tmp_path, plain):
    way = ("--frames", "4", "--seed", "3", "--to-seed", "8", "-o", "way.png", *plain)
    assert run("interpolate", FIRST, SECOND, *way) == 0
    assert run("generate", FIRST, "--seed", "3", "-o", "first.png", *plain) == 0
    assert run("generate", SECOND, "--seed", "8", "-o", "last.png", *plain) == 0
    frames = [_pixels(tmp_path / f"way-{frame}.png") for frame in range(4)]
    assert np.array_equal(frames[0], _pixels(tmp_path / "first.png"))
    assert np.abs(frames[3] - _pixels(tmp_path / "last.png")).max() <= 1
    assert all((one != other).any() for one, other in pairwise(frames))
    assert read_manifest(tmp_path / "way-1.png").toward == Toward(SECOND, 1 / 3)
    assert main(["rerun", "way-2.png", "-o", "again.png"]) == 0
    assert np.array_equal(_pixels(tmp_path / "again.png"), frames[2])


def test_prompts_of_different_lengths_meet(run, tmp_path):
    long = ", ".join(["a red cube"] * 12)
    assert run("interpolate", FIRST, long, "--frames", "2", "-o", "way.png") == 0
    assert run("generate", long, "-o", "last.png") == 0
    difference = _pixels(tmp_path / "way-1.png") - _pixels(tmp_path / "last.png")
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--frames", "1"), "frames should lie between 2 and"),
        (("--count", "2"), "takes no count beside its own"),
        (("--to-seed", "1", "--subseed-strength", "0.5"), "give one of them"),
        (("--step", "3"), "Unknown option"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, capsys, options, message):
    assert run("interpolate", FIRST, SECOND, *options) == 2
    told = capsys.readouterr().err
    assert message in told
    assert not list(tmp_path.glob("*.png"))


def test_several_things_at_once_have_no_way_between_them(run, capsys):
    assert run("interpolate", FIRST, "a cube AND a ball") == 2
    assert "AND does not go with a second prompt" in capsys.readouterr().err
