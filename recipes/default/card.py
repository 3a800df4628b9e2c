"""What was measured, into the model card: `python card.py` after `make evaluate`.

The lines of MODEL_CARD.md between `<!-- measured -->` and `<!-- /measured -->` become the tables of
the evaluation's report and of the judges' own tests, so that no figure there is typed by hand. The
report's plots are copied into docs/samples/.
"""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

from held_out import HERE

from safelight.checkpoints.atomic import replacing_file, write_text
from safelight.config import read_json
from safelight.errors import SafelightError

PLOTS = ("scale.png", "steps.png")
SPLITS = {
    "held_out_pictures": "scenes of seen pairs",
    "held_out_pairs": "scenes of held-out pairs",
    "train": "emoji of the training",
    "held_out": "held-out emoji",
}


def measured(evaluation: Path, plots: str) -> str:
    """The report without its title, one level deeper, its plots shown from the folder `plots`."""
    report = evaluation / "report.md"
    if not report.is_file():
        raise SafelightError(f"No report {report}; make it first: make evaluate")
    _, _, text = report.read_text(encoding="utf-8").partition("\n\n")
    text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
    return re.sub(r"(!\[[^]]*\])\(([^)]+)\)", rf"\1({plots}/\2)", text).strip()


def judges(folder: Path) -> str:
    """How often each judge is right about real pictures, as its training tested it."""
    rows = []
    for split, parts in read_json(folder / "scenes" / "real.json").items():
        rows += [
            (f"{SPLITS[split]}: {aspect}", f"{100 * part:.1f} %") for aspect, part in parts.items()
        ]
    for name, part in read_json(folder / "captions" / "real.json").items():
        split, _, kind = name.partition(", ")
        rows.append((f"{SPLITS[split]}, {kind}: own caption first of 100", f"{100 * part:.1f} %"))
    head = ["| the judges on real pictures | right |", "|---|---:|"]
    return "\n".join([*head, *(f"| {what} | {part} |" for what, part in rows)])


def rewrite(card: Path, text: str, name: str = "measured") -> None:
    """Puts the text between the card's two marks of a name; errors as `around`."""
    head, tail = around(card, name)
    write_text(card, f"{head}\n\n{text}\n\n{tail}")


def around(card: Path, name: str = "measured") -> tuple[str, str]:
    """What stands before and behind the text between a card's two marks of a name, with the marks.

    Raises `SafelightError` unless there is such a card with each mark once: a script that measures
    for hours asks before it begins.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if not card.is_file():
        raise SafelightError(f"No page {card}, into which figures are to be written.")
    before = card.read_text(encoding="utf-8")
    if before.count(begin) != 1 or before.count(end) != 1:
        raise SafelightError(f"{card} should hold {begin} and {end} once each.")
    head, _, rest = before.partition(begin)
    _, mark, tail = rest.partition(end)
    if not mark:
        raise SafelightError(f"{card} holds {end} before {begin}; swap them.")
    return f"{head}{begin}", f"{end}{tail}"


def main() -> int:
    """Rewrites the card named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="holds evaluation/")
    parser.add_argument("--judges", type=Path, default=HERE / "work" / "judges")
    parser.add_argument("--card", type=Path, default=HERE / "MODEL_CARD.md")
    parser.add_argument("--samples", type=Path, default=HERE.parents[1] / "docs" / "samples")
    arguments = parser.parse_args()
    evaluation = arguments.work / "evaluation"
    plots = Path(os.path.relpath(arguments.samples, arguments.card.parent)).as_posix()
    try:
        rewrite(
            arguments.card,
            f"{measured(evaluation, plots)}\n\n### The judges\n\n{judges(arguments.judges)}",
        )
        for name in PLOTS:
            if (evaluation / name).is_file():
                with replacing_file(arguments.samples / name) as part:
                    shutil.copyfile(evaluation / name, part)
    except SafelightError as error:
        print(f"card: {error}", file=sys.stderr)
        return 2
    print(arguments.card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
