"""Adversarial distillation by recipe, on a tiny model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline

import safelight
from distilling import distilled, write_workshop
from safelight.app.recipe import DistillationRecipe, read_recipe
from safelight.checkpoints.files import read_state
from safelight.checkpoints.folder import read_folder
from safelight.checkpoints.lora_file import LORA_FILE
from safelight.errors import SafelightError
from tiny_model import SIZE

ADVERSARIAL = ('distillation.method="adversarial"', "adversarial.heads.channels=8")
VIEWS = {
    "latents": ("distillation.steps=2",),
    "the way down": ('adversarial.blocks="down"', "distillation.steps=1"),
    "teacher's samples": ('adversarial.real="teacher"', "distillation.teacher_steps=2"),
    "pictures": ('features="efficientnet-lite0"',),
    "lora": ("lora={rank=4, alpha=8}",),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_workshop(tmp_path_factory.mktemp("adversarial"))


def _log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def _state(model: Path) -> dict[str, torch.Tensor]:
    if (model / LORA_FILE).is_file():
        return read_state(model / LORA_FILE)
    return dict(read_folder(model).unet.state_dict())


@pytest.mark.parametrize("view", VIEWS)
def test_a_student_is_trained_and_resumed_to_the_bit(workshop, tmp_path, view):
    changed = (*ADVERSARIAL, *VIEWS[view], "loop.log_every=1")
    base = read_folder(workshop / "model").unet.state_dict()
    whole = distilled(workshop, tmp_path / "whole", *changed)
    distilled(workshop, tmp_path / "halves", "loop.steps=2", *changed)
    halves = distilled(workshop, tmp_path / "halves", *changed, resume=True)
    first, second = _state(whole), _state(halves)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    if view != "lora":
        assert any(not torch.allclose(first[name], base[name], atol=1e-4) for name in base)
    rows = _log(tmp_path / "whole")
    assert {"fooled", "score", "adversary", "r1", "real"} <= rows[-1].keys()
    assert rows[-1]["grad_norm_adversary"] > 0


@pytest.mark.parametrize("steps", [1, 4])
def test_a_student_runs_as_sdxl_turbo_does(workshop, tmp_path, steps):
    """In few steps, without guidance, and as diffusers does."""
    changed = (*ADVERSARIAL, f"distillation.steps={steps}", "optim.lr=1e-2", "loop.ema=0")
    folder = distilled(workshop, tmp_path, *changed)
    said = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    assert said["_class_name"] == "EulerAncestralDiscreteScheduler"
    assert said["timestep_spacing"] == "trailing"
    pipeline = safelight.load(folder, device="cpu")
    (made,) = pipeline.generate("a red ball", seed=5)
    assert (made.manifest.steps, made.manifest.scale) == (steps, 1.0)
    theirs = StableDiffusionPipeline.from_pretrained(folder)
    assert isinstance(theirs.scheduler, EulerAncestralDiscreteScheduler)
    theirs.set_progress_bar_config(disable=True)
    wanted = theirs(
        "a red ball",
        num_inference_steps=steps,
        guidance_scale=0.0,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images[0]
    assert np.abs(np.asarray(made.image) / 255 - wanted).max() <= 1 / 255


def test_mistakes_are_told_in_a_line(workshop, tmp_path):
    recipe = read_recipe(workshop / "distil.toml", ADVERSARIAL)
    assert isinstance(recipe, DistillationRecipe)
    assert recipe.features is None
    mistakes = {
        'features="efficientnet-lite0"': "are of distillation.method",
        "adversarial.r1=1.0": "are of distillation.method",
    }
    for changed, message in mistakes.items():
        with pytest.raises(SafelightError, match=message):
            read_recipe(workshop / "distil.toml", (changed,))
    for changed, message in {
        "adversarial.chances=[1.0, 1.0]": "each of 4 steps, got 2",
        "adversarial.heads.channels=12": r"adversarial\.heads\.channels should be a multiple of 8",
    }.items():
        with pytest.raises(SafelightError, match=message):
            read_recipe(workshop / "distil.toml", (*ADVERSARIAL, changed))
    with pytest.raises(SafelightError, match="with the student's LoRA"):
        read_recipe(
            workshop / "distil.toml", (*ADVERSARIAL, "lora={rank=4}", "optim.recompute=true")
        )
    told = distilled(workshop, tmp_path / "lcm", "loop.steps=1")
    with pytest.raises(SafelightError, match="told its scale of guidance"):
        distilled(workshop, tmp_path / "again", *ADVERSARIAL, f'base="{told}"')
