"""Guidance on the command line: in the manifest, and the same picture again."""

from pathlib import Path

import pytest
from PIL import Image

from safelight.app.cli import main
from safelight.pipelines.guidance_settings import PLAIN, Guidance, Projection, Scales
from safelight.pipelines.picture_files import read_manifest
from tiny_model import write_tiny_model


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _generate(model, *options):
    fixed = ["--model", str(model), "--device", "cpu", "--steps", "4", "-o", "a.png"]
    return main(["generate", "a red cube", "--negative", "mush", *fixed, *options])


@pytest.mark.parametrize(
    ("options", "guidance"),
    [
        ("--scale 3", PLAIN),
        ("--scale 7,7,5,3", Guidance(scales=Scales((7.0, 7.0, 5.0, 3.0)))),
        (
            "--scale 7:1 --guidance-rescale 0.7 --guidance-interval 0.2,9",
            Guidance(scales=Scales((7.0, 1.0), linear=True), rescale=0.7, interval=(0.2, 9.0)),
        ),
        (
            "--pag-scale 3 --pag-layers mid,down_blocks.1",
            Guidance(pag_scale=3.0, pag_layers=("mid", "down_blocks.1")),
        ),
        (
            "--apg-eta 0 --apg-norm-threshold 5 --apg-momentum -0.5",
            Guidance(apg=Projection(0.0, 5.0, -0.5)),
        ),
        ("--perp-neg 1", Guidance(perp_neg=1.0)),
    ],
)
def test_each_option_is_in_the_manifest_and_comes_again(model_folder, options, guidance):
    assert _generate(model_folder, *options.split()) == 0
    manifest = read_manifest(Path("a.png"))
    assert manifest.guidance == guidance
    assert main(["rerun", "a.png"]) == 0
    with Image.open("a.png") as first, Image.open("a-rerun.png") as again:
        assert first.tobytes() == again.tobytes()


def test_a_guide_comes_again_and_another_in_its_place_is_refused(model_folder, here, capsys):
    guide = write_tiny_model(here / "weaker", 1)
    assert _generate(model_folder, "--guide", str(guide), "--guide-scale", "3") == 0
    manifest = read_manifest(Path("a.png"))
    assert (manifest.guide.model, manifest.guidance.guide_scale) == (str(guide), 3.0)
    assert main(["rerun", "a.png"]) == 0
    write_tiny_model(guide, 2)
    capsys.readouterr()
    assert main(["rerun", "a.png"]) == 2
    assert f"The weights of {str(guide)!r} are not those that made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--scale strong", "scale should be a number, one for each part of the steps (7,7,5,3)"),
        ("--guidance-interval 3", "--guidance-interval should be two noise levels such as 0.3,5"),
        ("--guidance-rescale 2", "guidance_rescale should lie from 0 to 1, got 2.0."),
        ("--pag-scale 3 --pag-layers top", "This U-Net has them in down_blocks.0, down_blocks.1,"),
        ("--guide-scale 2", "give a guide too."),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_made(model_folder, here, capsys, options, message):
    assert _generate(model_folder, *options.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (here / "a.png").exists()
