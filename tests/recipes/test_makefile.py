"""What make does again when something was remade; the programs only write down how they ran."""

import os
import shutil
import subprocess
from pathlib import Path

import held_out
import pytest

RECIPE = Path(held_out.__file__).parent
CONTROLS = [f"control_{kind}.toml" for kind in ("canny", "scribble", "depth", "pose")]
CONDITIONS = [
    f"condition_{kind}.toml"
    for kind in (
        "class",
        "depth",
        "semantic",
        "layout",
        "low_resolution",
        "inpainting",
        "image",
        "several",
    )
]
PROGRAM = """#!/bin/sh
echo "$@" >> calls.txt
case "$1" in
    judge_scenes.py) mkdir -p work/judges/scenes && touch work/judges/scenes/real.json ;;
    judge_hints.py) mkdir -p work/judges/pose && touch work/judges/pose/real.json ;;
    rank_captions.py) mkdir -p work/judges/captions && touch work/judges/captions/real.json ;;
esac
if [ "$STOPPED" ]; then exit 1; fi
while [ $# -gt 0 ]; do
    if [ "$1" = --output ]; then mkdir -p "$2" && echo "trained" >> "$2/log.jsonl"; fi
    shift
done
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the recipe, an hour old, with packages in place."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for path in RECIPE.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    (tmp_path / "python").write_text(PROGRAM)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "work/stamps").mkdir(parents=True)
    (tmp_path / "work/stamps/packages").touch()
    age(tmp_path, 3600)
    return tmp_path


def age(folder: Path, seconds: int) -> None:
    """Makes every file older, those that make has made among them."""
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            os.utime(path, (stat.st_atime, stat.st_mtime - seconds))


def make(house: Path, target: str, *, stopped: bool = False) -> list[str]:
    """Runs make, and gives the scripts, recipes and commands that it ran."""
    (house / "calls.txt").write_text("")
    environment = os.environ | {"STOPPED": "yes" if stopped else ""}
    done = subprocess.run(
        ["make", "-C", house, target, f"PYTHON={house / 'python'}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) is stopped, done.stderr
    calls = (house / "calls.txt").read_text().splitlines()
    words = [call.split() for call in calls]
    return [call[3] if call[0] == "-m" else call[0] for call in words]


def test_everything_is_made_once(house: Path):
    first = make(house, "all")
    trained = [name for name in first if name.endswith(".toml")]
    assert trained == [
        "autoencoder.toml",
        "unet.toml",
        "unet_longer.toml",
        "unet_scenes.toml",
        "evaluation.toml",
        *CONTROLS,
    ]
    scripts = {"hints.py", "judge_scenes.py", "judge_hints.py", "rank_captions.py"}
    assert scripts | {"measure_controls.py", "bundle.py", "samples.py"} <= set(first)
    assert make(house, "all") == []


@pytest.mark.parametrize(
    ("remade", "again", "anew"),
    [
        (
            "autoencoder.toml",
            ["autoencoder.toml", "unet.toml", "unet_longer.toml", "unet_scenes.toml"],
            ["autoencoder", "unet", "unet_longer", "unet_scenes"],
        ),
        (
            "learn_vocabulary.py",
            ["learn_vocabulary.py", "unet.toml", "unet_longer.toml", "unet_scenes.toml"],
            ["unet", "unet_longer", "unet_scenes"],
        ),
        (
            "unet.toml",
            ["unet.toml", "unet_longer.toml", "unet_scenes.toml"],
            ["unet", "unet_longer", "unet_scenes"],
        ),
        (
            "unet_longer.toml",
            ["unet_longer.toml", "unet_scenes.toml"],
            ["unet_longer", "unet_scenes"],
        ),
        ("unet_scenes.toml", ["unet_scenes.toml"], ["unet_scenes"]),
    ],
)
def test_a_finished_training_on_what_was_remade_begins_anew(
    house: Path, remade: str, again: list[str], anew: list[str]
):
    make(house, "unet")
    age(house, 60)
    (house / remade).touch()
    assert make(house, "unet") == again
    for name in ("autoencoder", "unet", "unet_longer", "unet_scenes"):
        assert (house / "work" / f"{name}.old").exists() == (name in anew)
        assert (house / "work" / name / "log.jsonl").read_text() == "trained\n"
    assert make(house, "unet") == []


def test_a_stopped_training_goes_on(house: Path):
    make(house, "unet")
    age(house, 60)
    (house / "unet.toml").touch()
    make(house, "unet", stopped=True)
    assert (house / "work/unet.old").exists()
    (house / "work/unet").mkdir()
    (house / "work/unet/checkpoint").touch()
    assert make(house, "unet") == ["unet.toml", "unet_longer.toml", "unet_scenes.toml"]
    assert (house / "work/unet/checkpoint").exists()


@pytest.mark.parametrize(
    ("remade", "again"),
    [
        (
            "judge_scenes.py",
            ["judge_scenes.py", "evaluation.toml", "judge_hints.py", "measure_controls.py"],
        ),
        ("judge_hints.py", ["judge_hints.py", "measure_controls.py"]),
        ("rank_captions.py", ["rank_captions.py", "evaluation.toml", "measure_controls.py"]),
        ("control_pose.toml", ["control_pose.toml", "measure_controls.py"]),
        ("samples.py", []),
    ],
)
def test_each_judge_and_picture_of_the_card_is_made_anew_by_itself(
    house: Path, remade: str, again: list[str]
):
    make(house, "all")
    age(house, 60)
    (house / remade).touch()
    assert make(house, "all") == [*again, "bundle.py", "samples.py", "curves.py", "card.py"]


def test_conditions_are_trained_and_measured_beside_the_bundle(house: Path):
    everything = make(house, "all")
    assert not set(CONDITIONS) & set(everything)
    first = make(house, "conditions")
    assert [name for name in first if name.endswith(".toml")] == CONDITIONS
    assert first[0] == "conditions.py"
    assert first[-1] == "measure_conditions.py"
    assert make(house, "conditions") == []
    age(house, 60)
    (house / "condition_depth.toml").touch()
    assert make(house, "conditions") == ["condition_depth.toml", "measure_conditions.py"]
    assert (house / "work/conditions/depth.old").exists()
    assert not (house / "work/conditions/class.old").exists()
    age(house, 60)
    (house / "condition_bench.py").touch()
    assert make(house, "conditions") == ["measure_conditions.py"]
    assert make(house, "all") == []
