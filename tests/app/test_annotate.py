"""`safelight annotate`: the hint in a file, or one line that says why not."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.app.cli import main
from safelight.app.commands.annotate import annotate
from safelight.pipelines.annotate import KINDS, kind_of

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def photo(tmp_path):
    levels = np.zeros((30, 40, 3), np.uint8)
    levels[8:20, 10:25] = (200, 90, 60)
    Image.fromarray(levels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_hint_is_written_and_named(photo, tmp_path, capsys):
    hint = tmp_path / "hint.png"
    options = ["--set", "low=20", "--set", "high=40.5"]
    assert main(["annotate", "canny", str(photo), "-o", str(hint), *options]) == 0
    assert capsys.readouterr().out == f"{hint}\n"
    edges = cv2.Canny(np.asarray(Image.open(photo)), 20, 40.5)
    assert edges.any()
    assert (np.asarray(Image.open(hint)) == edges[..., None]).all()


def test_the_page_and_the_help_name_every_kind():
    page = (Path(__file__).parents[2] / "docs" / "control.md").read_text()
    _, _, hints = page.partition("## Hints")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", hints, re.MULTILINE)
    assert sorted(kind for kind, _ in rows) == list(KINDS)
    aliases = [(alias, kind) for kind, cell in rows for alias in re.findall(r"`(\w+)`", cell)]
    assert [(alias, kind_of(alias)) for alias, _ in aliases] == aliases
    assert [kind for kind in KINDS if kind not in (annotate.__doc__ or "")] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cany"], "Did you mean 'canny'"),
        (["canny", "--set", "low"], "name=value"),
        (["canny", "--set", "lo=3"], "Did you mean 'low'"),
        (["depth"], "Depth-Anything"),
        (["canny", "-o", "hint.txt"], "end it in .png"),
        (["canny", "-o", "nowhere/hint.png"], "does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments, says, photo, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    kind, *options = arguments
    output = [] if "-o" in options else ["-o", "hint.png"]
    assert main(["annotate", kind, "photo.png", *options, *output]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
