"""What make does again when something was remade; the programs only write down how they ran."""

import ast
import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import held_out
import pytest

from safelight.app.evaluation_file import read_evaluation
from safelight.app.recipe import read_recipe

RECIPE = Path(held_out.__file__).parent
CONTROLS = [f"control_{kind}.toml" for kind in ("canny", "scribble", "depth", "pose")]
STUDENTS = ["student_lcm.toml", "student_turbo.toml"]
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
EVERYTHING = ("all", "conditions", "default-tiny", "default-video")
PROGRAM = """#!/bin/sh
echo "$@" >> calls.txt
case "$1" in
    judge_scenes.py) judge=scenes ;;
    judge_hints.py) judge=pose ;;
    rank_captions.py) judge=captions ;;
esac
if [ "$STOPPED" ]; then exit 1; fi
while [ $# -gt 0 ]; do
    if [ "$judge" ] && [ "$1" = --work ]; then
        mkdir -p "$2/judges/$judge" && touch "$2/judges/$judge/real.json"
    fi
    if [ "$1" = --output ]; then mkdir -p "$2" && echo "trained" >> "$2/log.jsonl"; fi
    shift
done
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the recipe, an hour old, with packages in place."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    house = tmp_path / "recipes" / "default"
    house.mkdir(parents=True)
    for path in RECIPE.iterdir():
        if path.is_file():
            shutil.copy(path, house)
    (tmp_path / "docs").mkdir()
    shutil.copy(RECIPE.parents[1] / "docs" / "conditions.md", tmp_path / "docs")
    (house / "python").write_text(PROGRAM)
    (house / "python").chmod(0o755)
    for work in ("work", "work/trial"):
        (house / work / "stamps").mkdir(parents=True)
        for packages in ("packages", "clip_packages"):
            (house / work / "stamps" / packages).touch()
    age(tmp_path, 3600)
    return house


def age(folder: Path, seconds: int) -> None:
    """Makes every file older, those that make has made among them."""
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            os.utime(path, (stat.st_atime, stat.st_mtime - seconds))


def make(house: Path, *words: str, stopped: bool = False) -> list[str]:
    """Runs make, and gives the scripts, recipes and commands that it ran."""
    return [
        Path(call[3]).name if call[0] == "-m" else call[0]
        for call in calls(house, *words, stopped=stopped)
    ]


def calls(house: Path, *words: str, stopped: bool = False) -> list[list[str]]:
    """Runs make, and gives the arguments of each program that it ran."""
    (house / "calls.txt").write_text("")
    environment = os.environ | {"STOPPED": "yes" if stopped else ""}
    done = subprocess.run(
        ["make", "-C", house, *words, f"PYTHON={house / 'python'}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) is stopped, done.stderr
    return [call.split() for call in (house / "calls.txt").read_text().splitlines()]


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
        *STUDENTS,
    ]
    scripts = {"hints.py", "judge_scenes.py", "judge_hints.py", "rank_captions.py"}
    scripts |= {"measure_controls.py", "measure_students.py", "bundle.py", "samples.py"}
    assert scripts <= set(first)
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
            [
                *("judge_scenes.py", "evaluation.toml", "judge_hints.py"),
                *("measure_controls.py", "measure_students.py"),
            ],
        ),
        ("judge_hints.py", ["judge_hints.py", "measure_controls.py"]),
        (
            "rank_captions.py",
            ["rank_captions.py", "evaluation.toml", "measure_controls.py", "measure_students.py"],
        ),
        (
            "control_canny.toml",
            ["control_canny.toml", "control_depth.toml", "measure_controls.py"],
        ),
        ("control_pose.toml", ["control_pose.toml", "measure_controls.py"]),
        ("student_lcm.toml", ["student_lcm.toml", "measure_students.py"]),
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


def test_the_video_model_is_trained_on_the_bundle(house: Path):
    everything = make(house, "all")
    first = make(house, "default-video")
    assert first == [
        "moving_emoji.py",
        "moving.py",
        "video.toml",
        "video_longer.toml",
        "video_slowed.toml",
        "video_around.toml",
        "video_alike.toml",
        "steady_video.py",
        "measure_video.py",
        "bundle_video.py",
    ]
    assert not set(first) & set(everything)
    assert make(house, "all", "default-video") == []
    age(house, 60)
    (house / "video.toml").touch()
    assert make(house, "default-video") == first[2:]
    assert (house / "work/video.old").exists()
    age(house, 60)
    (house / "moving_people.py").touch()
    assert make(house, "all") == []
    assert make(house, "default-video") == first[1:]
    age(house, 60)
    (house / "samples.py").touch()
    assert make(house, "default-video")[-len(first) + 2 :] == first[2:]


def test_the_tiny_autoencoder_is_trained_measured_and_bundled_by_itself(house: Path):
    make(house, "all")
    first = make(house, "default-tiny")
    assert first == ["tiny.toml", "measure_tiny.py", "bundle.py"]
    assert make(house, "all", "default-tiny") == []
    age(house, 60)
    (house / "tiny.toml").touch()
    assert make(house, "default-tiny") == first
    assert (house / "work/tiny.old").exists()


def test_what_a_script_imports_makes_it_run_again(house: Path):
    every = make(house, *EVERYTHING)
    scripts = {name for name in every if name.endswith(".py")}
    imported = {name: imports(name) for name in scripts}
    for module in sorted(set.union(*imported.values())):
        age(house, 60)
        (house / module).touch()
        again = set(make(house, *EVERYTHING))
        assert {name for name in scripts if module in imported[name]} <= again, module


def imports(script: str) -> set[str]:
    """The recipe's files that a script imports at its top, those that these import, and itself."""
    found, left = set[str](), [script]
    while left:
        name = left.pop()
        if name in found or not (RECIPE / name).is_file():
            continue
        found.add(name)
        for node in ast.parse((RECIPE / name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                left += [f"{alias.name}.py" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                left.append(f"{node.module}.py")
    return found


@pytest.mark.parametrize("size", [[], ["SIZE=128"]])
def test_a_trial_runs_every_stage_in_its_own_folder(house: Path, size: list[str]):
    full = make(house, *EVERYTHING, *size)
    outside = listing(house)
    few = make(house, *EVERYTHING, "TRIAL=1", *size)
    assert few == ["few_scenes.py" if name == "scenes.py" else name for name in full]
    assert listing(house) == outside
    assert make(house, *EVERYTHING, "TRIAL=1", *size) == []
    age(house, 60)
    (house / "condition_class.toml").touch()
    again = ["condition_class.toml", "measure_conditions.py"]
    assert make(house, *EVERYTHING, "TRIAL=1", *size) == again


def listing(house: Path) -> set[str]:
    """All files of the project but those of a trial."""
    trial, log = house / "work" / "trial", house / "calls.txt"
    files = {path for path in house.parents[1].rglob("*") if path.is_file() and path != log}
    return {str(path) for path in files if trial not in path.parents}


@pytest.mark.parametrize("trial", [[], ["TRIAL=1"]])
def test_what_make_tells_each_training_suits_its_recipe(
    house: Path, monkeypatch: pytest.MonkeyPatch, trial: list[str]
):
    monkeypatch.chdir(house)
    work = house.joinpath("work", *["trial" for _ in trial])
    trained = 0
    for call in calls(house, *EVERYTHING, *trial):
        if call[0] != "-m":
            continue
        source = Path(call[3])
        if call[2] == "train":
            overrides = [value for option, value in pairwise(call) if option == "--set"]
            recipe = read_recipe(source, overrides)
            folders = [folder.path for folder in recipe.data.folders]
            trained += 1
        else:
            subjects = read_evaluation(source).subjects
            folders = [source.parent / subject.seen for subject in subjects]
        assert folders
        kinds = {folder.resolve().relative_to(work).parts[0] for folder in folders}
        assert kinds == ({"clips"} if source.stem.startswith("video") else {"pictures"})
    assert trained == 10 + len(CONTROLS) + len(STUDENTS) + len(CONDITIONS)
