"""Models that are a LoRA on another: what a distillation with `[lora]` leaves."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from distilling import METHODS, distilled, write_workshop
from safelight.app.cli import main
from safelight.checkpoints.folder import read_folder
from safelight.checkpoints.lora_file import LORA_FILE
from safelight.checkpoints.model import BASE, base_of, read_model
from safelight.errors import SafelightError
from safelight.pipelines.find import find_model, known_models
from safelight.pipelines.load import load

PROMPT = "a red ball"


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    workshop = write_workshop(tmp_path_factory.mktemp("based"))
    return distilled(workshop, workshop / "out", *METHODS["lora"])


def _copied(student: Path, to: Path) -> Path:
    """The student and its base, in the same places from one another."""
    shutil.copytree(student.parent.parent, to)
    return to / student.relative_to(student.parent.parent)


def test_it_makes_the_pictures_of_its_base_with_the_lora(student):
    based = load(student, device="cpu")
    assert (based.folder.defaults.sampler, based.folder.defaults.scale) == ("lcm", 1.0)
    (made,) = based.generate(PROMPT, seed=3)
    base = load(base_of(student), device="cpu")
    (plain,) = base.generate(PROMPT, seed=3, sampler="lcm", steps=4, scale=1.0)
    base.adapt(student / LORA_FILE)
    (adapted,) = base.generate(PROMPT, seed=3, sampler="lcm", steps=4, scale=1.0)
    assert made.image.tobytes() == adapted.image.tobytes()
    assert made.image.tobytes() != plain.image.tobytes()


def test_it_takes_adapters_and_lets_them_go(student):
    based = load(student, device="cpu")
    (before,) = based.generate(PROMPT, seed=3)
    based.adapt(student / LORA_FILE, 0.5)
    (twice,) = based.generate(PROMPT, seed=3)
    based.eject()
    (after,) = based.generate(PROMPT, seed=3)
    assert before.image.tobytes() == after.image.tobytes() != twice.image.tobytes()


def test_its_pictures_are_made_again_and_a_changed_lora_is_told(student, tmp_path, capsys):
    folder = _copied(student, tmp_path / "there")
    picture, again = tmp_path / "a.png", tmp_path / "b.png"
    main(["generate", PROMPT, "--model", str(folder), "-o", str(picture)])
    main(["rerun", str(picture), "-o", str(again)])
    with Image.open(picture) as first, Image.open(again) as second:
        assert first.tobytes() == second.tobytes()
    shown = json.loads(_printed(capsys, ["show", str(picture)]))
    assert {"lora", "unet"} <= shown["weights"].keys()
    assert shown["adapters"] == []
    state = (folder / LORA_FILE).read_bytes()
    (folder / LORA_FILE).write_bytes(state[:-1] + bytes([state[-1] ^ 1]))
    assert main(["rerun", str(picture), "-o", str(tmp_path / "c.png")]) == 2
    assert "lora" in capsys.readouterr().err


def _printed(capsys, arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_it_is_found_by_name_with_the_controls_of_its_base(student, tmp_path, monkeypatch):
    folder = _copied(student, tmp_path / "there")
    monkeypatch.setenv("SAFELIGHT_MODELS", str(folder.parent))
    assert find_model(folder.name) == folder
    known = {model.name: model for model in known_models()}[folder.name]
    assert known.family == f"a LoRA on {base_of(folder).name}"


def test_it_becomes_a_whole_folder_by_convert(student, tmp_path):
    assert main(["convert", str(student), str(tmp_path / "whole")]) == 0
    whole, based = read_folder(tmp_path / "whole"), read_model(student)
    state = whole.unet.state_dict()
    assert all(torch.equal(state[key], value) for key, value in based.unet.state_dict().items())
    assert (whole.scheduler.sampler, whole.defaults.steps) == ("lcm", based.defaults.steps)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("../nowhere", "which is not there"),
        (".", "stands on itself"),
        ("../model", "stands on itself"),
    ],
)
def test_a_base_that_cannot_be_is_one_line(student, tmp_path, base, said):
    folder = _copied(student, tmp_path / "there")
    (folder / BASE).write_text(json.dumps({"base": base}))
    with pytest.raises(SafelightError, match=said):
        read_model(folder)


def test_students_stand_on_students(student, tmp_path):
    folder = _copied(student, tmp_path / "there")
    upper = folder.parent / "upper"
    shutil.copytree(folder, upper)
    (upper / BASE).write_text(json.dumps({"base": "../model"}))
    model = read_model(upper)
    assert len(model.files["lora"]) == 2
    once = read_model(folder).unet.state_dict()
    assert any(not torch.equal(once[key], value) for key, value in model.unet.state_dict().items())
