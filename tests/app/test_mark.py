"""`--watermark` and `--safety` on the command line."""

import json

from PIL import Image

from safelight.app.cli import main
from safelight.pipelines.watermark import find_mark


def test_a_marked_picture_comes_again_to_the_bit(model_folder, tmp_path, capsys):
    made, options = tmp_path / "a.png", ["--device", "cpu", "--steps", "2", "--watermark"]
    sizes = ["--width", "64", "--height", "64"]
    folder = ["--model", str(model_folder)]
    assert main(["generate", "a red cube", *folder, *options, *sizes, "-o", str(made)]) == 0
    assert find_mark(Image.open(made)).marked
    capsys.readouterr()
    assert main(["show", str(made)]) == 0
    assert json.loads(capsys.readouterr().out)["watermark"] == "qim-dct-2"
    assert main(["rerun", str(made)]) == 0
    assert "the same pixels" in "".join(capsys.readouterr())


def test_an_axis_is_no_mark(capsys):
    assert main(["grid", "x", "--x", "watermark=a,b"]) == 2
    assert "no axis" in capsys.readouterr().err
