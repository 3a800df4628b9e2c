"""`safelight animate`, and clips shown and made again, in process."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from option_names import option_names
from safelight.app.cli import main
from safelight.app.commands.animate import animate as command
from safelight.pipelines.clip_files import read_clip_manifest
from tiny_model import write_tiny_model
from tiny_video import FRAMES, write_video_model

PROMPT = ("--prompt", "a red cube")


@pytest.fixture(scope="session")
def video_model(tmp_path_factory) -> str:
    return str(write_video_model(tmp_path_factory.mktemp("models") / "video"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    levels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(levels).resize((36, 24)).save("in.png")
    return tmp_path


def animate(model: str, *options: str) -> int:
    return main(["animate", *options, "--model", model, "--device", "cpu"])


def test_a_picture_becomes_a_clip_that_says_what_made_it(video_model, capsys):
    assert animate(video_model, "in.png", "-o", "out.webp", "--motion", "40", *PROMPT) == 0
    assert capsys.readouterr().out == "out.webp\n"
    with Image.open("out.webp") as clip:
        assert (clip.n_frames, clip.size) == (FRAMES, (16, 16))
        clip.seek(1)
        clip.load()
        assert clip.info["duration"] == 200
    manifest = read_clip_manifest(Path("out.webp"))
    assert (manifest.settings.fps, manifest.settings.motion) == (5.0, 40.0)
    assert main(["show", "out.webp"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == "a red cube"


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out"])
def test_it_comes_again_from_every_kind_of_file(video_model, capsys, name):
    options = ("--last", "in.png", "--frames", "6", "--seed", "5", "--low-memory")
    assert animate(video_model, "in.png", "-o", name, *options) == 0
    capsys.readouterr()
    assert main(["show", name]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["settings"]["frames"] == 6
    assert manifest["settings"]["window"] == FRAMES
    assert main(["rerun", name]) == 0
    captured = capsys.readouterr()
    target = name.replace("out", "out-rerun")
    assert captured.out == f"{target}\n"
    assert "the same pixels" in captured.err
    again = read_clip_manifest(Path(target))
    assert again == read_clip_manifest(Path(name))
    if not Path(name).suffix:
        frames = sorted(path.name for path in Path(name).glob("*.png"))
        assert frames == [f"{place:04}.png" for place in range(6)]


def test_other_weights_and_pictures_are_told(video_model, capsys, tmp_path_factory):
    assert animate(video_model, "in.png", "-o", "out.webp") == 0
    other = str(write_video_model(tmp_path_factory.mktemp("models") / "other", seed=1))
    assert main(["rerun", "out.webp", "--model", other]) == 2
    assert "are not those that made the clip" in capsys.readouterr().err
    assert main(["rerun", "out.webp", "--model", other, "--other-weights"]) == 1
    assert "the pixels are not the same. Changed since: weights of" in capsys.readouterr().err
    Image.new("RGB", (20, 20), "red").save("in.png")
    assert main(["rerun", "out.webp"]) == 2
    assert "is not the picture of the first frame then" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "There is nothing to animate"),
        (("in.png", "-o", "x.avi"), "end it in .mp4, .webp, .gif"),
        (("in.png", "-o", "no/x.webp"), "does not exist"),
        (("in.png", "-o", "no/x"), "does not exist"),
        (("in.png", "-o", "x.webp", "--fps", "0"), "fps should lie between 1"),
        (("in.png", "-o", "x.webp", "--frames", "0"), "frames should lie between 1"),
        (("in.png", "-o", "x.webp", "--width", "15"), "width should be a multiple of 4"),
        (("in.png", "-o", "x.webp", "--loop", "--last", "in.png"), "A loop ends where it begins"),
        (("in.png", "-o", "x.webp", "--augmentation", "0.1"), "is not told of augmentation"),
        (("in.png", "-o", "x.webp", "--overlap", "4", "--frames", "9"), "less than the window"),
        (("in.png", "-o", "x.webp", "--prompt", "a AND b"), "Prompts that AND joins"),
        (("in.png", "-o", "."), "a folder with other files"),
    ],
)
def test_what_cannot_be_is_one_line(video_model, capsys, options, said):
    assert animate(video_model, *options) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_models_of_pictures_and_of_clips_are_told_apart(video_model, capsys, tmp_path):
    pictures = str(write_tiny_model(tmp_path / "pictures"))
    assert animate(pictures, "in.png", "-o", "x.webp") == 2
    assert "makes pictures, not clips" in capsys.readouterr().err
    assert main(["generate", "a red cube", "--model", video_model, "-o", "x.png"]) == 2
    assert "makes moving pictures: safelight animate" in capsys.readouterr().err


def test_every_option_has_its_row_in_the_page():
    page = (Path(__file__).parents[2] / "docs" / "video.md").read_text()
    options = [name for name in option_names(command) if name != "image"]
    assert [name for name in options if f"`--{name.replace('_', '-')}`" not in page] == []


def test_a_picture_without_manifest_stays_one(capsys):
    assert main(["show", "in.png"]) == 2
    assert "carries no safelight manifest" in capsys.readouterr().err
