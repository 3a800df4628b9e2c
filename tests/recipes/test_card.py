import json
import sys
from pathlib import Path

import card
import pytest

from safelight.eval.judges import Rate
from safelight.eval.report import (
    Distances,
    Following,
    Report,
    SubjectReport,
    Sweep,
    SweepPoint,
    write_report,
)

CARD = "# The model\n\nBefore.\n\n<!-- measured -->\nold\n<!-- /measured -->\n\nAfter.\n"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/conditions.md", ("measured",)),
        (
            "recipes/default/MODEL_CARD.md",
            ("measured", "controls", "students", "tiny", "video"),
        ),
    ],
)
def test_pages_that_scripts_write_into_have_their_marks(page: str, names: tuple[str, ...]):
    for name in names:
        head, tail = card.around(Path(card.__file__).parents[2] / page, name)
        assert head.endswith(f"<!-- {name} -->")
        assert tail.startswith(f"<!-- /{name} -->")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A card, an evaluation with one sweep, and what two judges said of real pictures."""
    (tmp_path / "MODEL_CARD.md").write_text(CARD)
    rates = {"colour": Rate(12, 16)}
    subject = SubjectReport(
        "scenes",
        Distances(3.0, 2.0, 0.004, 0.002, 16, 16),
        seen=Following(16, rates, {"colour": Rate(16, 16)}),
        sweeps=(Sweep("scale", None, 16, (SweepPoint(1.0, 4.0, 0.005, None),)),),
    )
    report = Report("work/unet/model", "Some Net", "ddim", 20, 4.0, 0, 9.0, (subject,), 64)
    write_report(report, tmp_path / "work" / "evaluation")
    for judge, real in (
        ("scenes", {"held_out_pairs": {"colour": 0.982}}),
        ("captions", {"held_out, disturbed": 0.9876}),
    ):
        folder = tmp_path / "work" / "judges" / judge
        folder.mkdir(parents=True)
        (folder / "real.json").write_text(json.dumps(real))
    return tmp_path


def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    arguments = ["--work", project / "work", "--judges", project / "work" / "judges"]
    arguments += ["--card", project / "MODEL_CARD.md", "--samples", project / "docs" / "samples"]
    monkeypatch.setattr(sys, "argv", ["card.py", *map(str, arguments)])
    return card.main()


def test_the_card_holds_the_report_and_the_judges_between_its_marks(project, monkeypatch):
    assert run(project, monkeypatch) == 0
    text = (project / "MODEL_CARD.md").read_text()
    head, middle = text.split("<!-- measured -->")
    middle, tail = middle.split("<!-- /measured -->")
    assert (head, tail) == ("# The model\n\nBefore.\n\n", "\n\nAfter.\n")
    for line in (
        "64 x 64 pixels; ddim, 20 steps, guidance scale 4, seed 0; features of Some Net; 9 s.",
        "### scenes",
        "| Fréchet (16 against 16) | 3.0 | 2.0 | 1.50 |",
        "| kernel × 1000 | 4.00 | 2.00 | 2.00 |",
        "![By scale](docs/samples/scale.png)",
        "| scenes of held-out pairs: colour | 98.2 % |",
        "| held-out emoji, disturbed: own caption first of 100 | 98.8 % |",
    ):
        assert line in middle.splitlines()
    assert "| seen: colour | 75.0 % (51 to 90, n = 16) | 100.0 % (81 to 100, n = 16) | 75 % |" in (
        middle.splitlines()
    )
    assert "old" not in middle
    assert "work/unet/model" not in middle
    plots = project / "docs" / "samples"
    assert [path.name for path in plots.iterdir()] == ["scale.png"]
    written = (project / "work" / "evaluation" / "scale.png").read_bytes()
    assert (plots / "scale.png").read_bytes() == written


def test_writing_again_changes_nothing(project, monkeypatch):
    run(project, monkeypatch)
    once = (project / "MODEL_CARD.md").read_text()
    run(project, monkeypatch)
    assert (project / "MODEL_CARD.md").read_text() == once


@pytest.mark.parametrize(
    "text",
    ["no marks", "<!-- measured --> alone", "<!-- /measured --><!-- measured -->", CARD + CARD],
)
def test_a_card_without_its_two_marks_is_left_alone(project, monkeypatch, capsys, text):
    (project / "MODEL_CARD.md").write_text(text)
    assert run(project, monkeypatch) == 2
    assert "MODEL_CARD.md" in capsys.readouterr().err
    assert (project / "MODEL_CARD.md").read_text() == text
    assert not (project / "docs").exists()


def test_a_report_that_is_not_there_is_told(project, monkeypatch, capsys):
    (project / "work" / "evaluation" / "report.md").unlink()
    assert run(project, monkeypatch) == 2
    assert "make it first: make evaluate" in capsys.readouterr().err
    assert (project / "MODEL_CARD.md").read_text() == CARD
