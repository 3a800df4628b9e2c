"""`safelight grid`: plots of varied settings."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from safelight.app.axes import Axis, axis_of, replaced
from safelight.app.cli import main
from safelight.app.grid_planning import axis_named, planned_cells
from safelight.errors import SafelightError
from safelight.pipelines.grid_manifest import GridManifest
from safelight.pipelines.grid_picture import grid_picture
from safelight.pipelines.picture_files import read_texts

KNOWN = ("steps", "scale", "sampler", "words")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(model_folder):
    def run(*options: str) -> int:
        return main(["grid", "a red cube", *options, "--model", str(model_folder)])

    return run


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("steps=5,10, 20", ("5", "10", "20")),
        ("steps=1-4", ("1", "2", "3", "4")),
        ("steps=4-2", ("4", "3", "2")),
        ("steps=1-10(+3)", ("1", "4", "7", "10")),
        ("steps=10-1 (-3)", ("10", "7", "4", "1")),
        ("steps=1-10[5]", ("1", "3", "5", "7", "10")),
        ("scale=0.5-1.5(0.5),7", ("0.5", "1", "1.5", "7")),
        ("scale=-2--1", ("-2", "-1")),
        ('sampler="a, b",c-d', ("a, b", "c-d")),
        ("words=red,", ("red", "")),
    ],
)
def test_values(text, values):
    assert axis_of(text, KNOWN, ("steps", "scale")).values == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stepps=1", "Did you mean 'steps'?"),
        ("steps", "such as steps=5,10,20"),
        ("steps=", "empty value"),
        ("steps=1-5(-1)", "never comes"),
        ("steps=1-5(0)", "never comes"),
        ("steps=1-9999999", "1000 is the most"),
    ],
)
def test_no_axes(text, said):
    with pytest.raises(SafelightError, match=said.replace("?", r"\?").replace("(", r"\(")):
        axis_of(text, KNOWN, ("steps", "scale"))


def test_words_are_replaced_in_both_prompts():
    axis = Axis("words", ("red", "blue"))
    assert replaced(axis, "blue", ("a red cube", "dark red")) == ("a blue cube", "dark blue")
    with pytest.raises(SafelightError, match="neither"):
        replaced(axis, "blue", ("a cube", ""))


def test_a_grid_and_the_same_again(make, capsys):
    assert make("--x", "words=red,blue,two", "--y", "steps=1,2", "--seed", "3") == 0
    assert capsys.readouterr().out == "grid.png\n"
    grid = GridManifest.from_json(read_texts(Path("grid.png")).manifest or "", "")
    assert grid is not None
    made = [(cell.prompt, cell.steps, cell.seed) for cell in grid.cells]
    prompts = ["a red cube", "a blue cube", "a two cube"]
    assert made == [(prompt, steps, 3) for steps in (1, 2) for prompt in prompts]
    assert main(["rerun", "grid.png"]) == 0
    assert "the same pixels" in capsys.readouterr().err
    assert Path("grid-rerun.png").read_bytes() == Path("grid.png").read_bytes()


def test_cells_are_the_pictures_of_generate(make, model_folder):
    assert make("--x", "width=32,48", "--steps", "1", "-o", "g.webp") == 0
    options = ["--steps", "1", "--width", "48", "--model", str(model_folder), "-o", "one.png"]
    assert main(["generate", "a red cube", *options]) == 0
    with Image.open("g.webp") as grid, Image.open("one.png") as one:
        places = [
            (x, y)
            for x in range(grid.width - one.width + 1)
            for y in range(grid.height - one.height + 1)
            if grid.getpixel((x, y)) == one.getpixel((0, 0))
        ]
        boxes = [(x, y, x + one.width, y + one.height) for x, y in places]
        assert any(not ImageChops.difference(grid.crop(box), one).getbbox() for box in boxes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--x", "steps=1,two"], "two"),
        (["--x", "steps=1,0"], "steps should be 1 or more"),
        (["--x", "width=32,33"], "multiple of"),
        (["--x", "sampler=euler,eular"], "Did you mean"),
        (["--x", "steps=1", "--y", "steps=2"], "Both axes vary steps"),
        (["--x", "steps=1", "--count", "2"], "--count is not for a grid"),
        (["--x", "steps=1", "-o", "g.jpg"], ".png or .webp"),
        (["--x", "steps=1", "-o", "gone/g.png"], "does not exist"),
        (["--x", "words=green,blue"], "neither"),
        (["--x", "lora-strength=0,1"], "give one"),
        (["--x", "steps=1", "--stepps", "2"], "stepps"),
    ],
)
def test_errors_before_the_first_picture(make, capsys, monkeypatch, options, said):
    monkeypatch.setattr("safelight.pipelines.image.ImagePipeline.each", None)
    assert make(*options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize("side", [8, 64, 512])
def test_labels_meet_nothing(side):
    """No letter lies on a cell, and none at the edge, where it would be cut."""
    labels = ["steps: 5", "a label of many words " * 4, "without" * 12]
    cells = [[Image.new("RGB", (side, side), "red") for _ in labels] for _ in labels]
    grid = grid_picture(cells, labels, labels)
    red = (np.asarray(grid) == (255, 0, 0)).all(axis=-1).sum()
    assert red == side * side * len(labels) ** 2
    edges = [grid.crop((0, 0, grid.width, 2)), grid.crop((0, 0, 2, grid.height))]
    assert all(edge.getextrema() == ((255, 255),) * 3 for edge in edges)


def test_guidance_varies_beside_guidance_that_is_given_for_all():
    axis = axis_named("guidance-rescale=0.2,0.7")
    options = ("a cube", "--pag-scale", "3", "--pag-layers", "up", "--scale", "5")
    jobs = planned_cells(options, axis, axis_named("scale=1-9[3]"))
    told = [(request.scale, request.guidance) for job in jobs for request in job.requests]
    assert [scale for scale, _ in told] == [1.0, 1.0, 5.0, 5.0, 9.0, 9.0]
    assert [guidance.rescale for _, guidance in told] == [0.2, 0.7] * 3
    assert {(guidance.pag_scale, guidance.pag_layers) for _, guidance in told} == {(3.0, ("up",))}


def test_an_axis_may_take_guidance_back_to_none():
    jobs = planned_cells(("a", "--pag-scale", "3"), axis_named("pag-scale=0,3"), None)
    assert [job.requests[0].guidance.pag_scale for job in jobs] == [0.0, 3.0]
