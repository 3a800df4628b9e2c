"""The command line as a process of its own, and what all commands share."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from option_names import option_names
from safelight import __version__
from safelight.app.cli import _COMMANDS, main
from safelight.app.other_names import _OURS

COMMANDS = ("generate", "rerun", "show", "train", "eval", "inspect", "convert", "models")
ROW = r"^│ (?:\*  )?(--[a-z-]+.*?|[A-Z]+)(?:  +(.*?))? *│$"  # an option, and what is said of it


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "safelight.app.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_a_picture_by_a_process_of_its_own(model_folder, tmp_path):
    options = ["-o", "apple.png", "--model", str(model_folder), "--device", "cpu"]
    done = run("generate", "a red cube", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "apple.png\n", "")
    assert (tmp_path / "apple.png").is_file()


def test_a_mistake_by_a_process_of_its_own(tmp_path):
    done = run("generate", "a red cube", "--model", "none", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("safelight: No model 'none'.")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    command = f"{sys.executable} -m safelight.app.cli generate --help | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("Usage: safelight generate")
    assert done.stderr == ""


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {command} " in shown for command in COMMANDS)
    assert main([]) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_each_of_its_options(command, capsys):
    module, _, name = _COMMANDS[command][0].partition(":")
    options = option_names(getattr(import_module(f"safelight.app.commands.{module}"), name))
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: safelight {command}" in shown
    assert "--no-" not in shown.replace("--no-tiled-decode", "")  # which has a third state
    explained = re.findall(ROW, shown, re.MULTILINE)
    assert len(explained) == len(options)
    assert [option for option, words in explained if not re.match(r"[A-Za-z]", words)] == []


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_an_unknown_command_names_the_near_one(capsys):
    assert main(["generat", "x"]) == 2
    assert 'Did you mean "generate"?' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["generate", "x", "--cfg-scale", "3"], "--cfg-scale. Did you mean --scale?"),
        (["generate", "x", "--guidance_scale=3"], "--guidance_scale. Did you mean --scale?"),
        (["generate", "x", "--num-inference-steps", "3"], "Did you mean --steps?"),
        (["generate", "x", "--output-path", "a"], "--output-path. Did you mean --output?"),
        (["grid", "x", "--x", "steps=1", "--cfg-scale", "3"], "Did you mean --scale?"),
        (["rerun", "x.png", "--output-path", "a"], "Did you mean --output?"),
        (["show", "x.png", "--cfg-scale", "3"], "Unknown option: --cfg-scale."),
    ],
)
def test_options_by_the_names_of_other_programs(tokens, said, capsys):
    assert main(tokens) == 2
    assert capsys.readouterr().err.strip().endswith(said)


def test_other_names_are_of_options_that_there_are():
    generate = _COMMANDS["generate"][0].partition(":")
    names = option_names(getattr(import_module("safelight.app.commands.generate"), generate[2]))
    ours = {f"--{name.replace('_', '-')}" for name in names}
    assert set(_OURS.values()) <= ours
    assert not set(_OURS) & ours


def test_models_lists_names_families_and_folders(model_folder, monkeypatch, capsys):
    monkeypatch.setenv("SAFELIGHT_MODELS", str(model_folder.parent))
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    assert main(["models"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    [tiny] = [line for line in lines if line[0] == "tiny"]
    assert tiny[1] == "StableDiffusionPipeline"
    assert tiny[3] == "MB"
    assert Path(tiny[-1]) == model_folder


def test_no_models_at_all_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SAFELIGHT_MODELS", "")
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    monkeypatch.setattr("safelight.pipelines.find.bundled", lambda: tmp_path)
    assert main(["models"]) == 2
    assert "No model has a name here" in capsys.readouterr().err


def test_a_bug_shows_its_traceback(monkeypatch):
    monkeypatch.setattr("safelight.pipelines.find.known_models", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["models"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "x.png"), "x.png: No space left on device."),
        (OSError(28, "No space left on device"), "Input or output: No space left on device."),
        (OSError("image file is truncated"), "image file is truncated"),
        (OSError(), "OSError"),
    ],
)
def test_what_the_system_does_not_allow_is_one_line(monkeypatch, capsys, error, line):
    def refused() -> None:
        raise error

    monkeypatch.setattr("safelight.pipelines.find.known_models", refused)
    assert main(["models"]) == 2
    assert capsys.readouterr().err == f"safelight: {line}\n"


def test_train_hands_on_what_it_was_given(monkeypatch, tmp_path):
    given: list[object] = []

    def train_source(
        source: Path, overrides: tuple[str, ...], *, resume: bool, output: Path | None
    ) -> int:
        given.extend([source, tuple(overrides), resume, output])
        return 143

    monkeypatch.setattr("safelight.app.training.train_source", train_source)
    arguments = ["r.toml", "--set", "optim.lr=1e-4", "--set", "data.size=64", "--resume", "-o", "x"]
    assert main(["train", *arguments]) == 143
    assert given == [Path("r.toml"), ("optim.lr=1e-4", "data.size=64"), True, Path("x")]


def test_a_recipe_that_is_not_there(capsys):
    assert main(["train", "none.toml"]) == 2
    assert "none.toml" in capsys.readouterr().err
