"""Trainings of ControlNets by recipe, on a tiny model."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from safelight.app.recipe import ControlRecipe, read_recipe
from safelight.app.training import run_recipe
from safelight.checkpoints.components import read_unet
from safelight.checkpoints.controlnet import (
    is_control,
    read_control,
    read_controlnet,
    write_control,
    write_controlnet,
)
from safelight.errors import SafelightError
from safelight.models.control_plan import ControlPlan, planned
from safelight.models.controlnet import Controlled, ControlNet, Steering, even_weights
from safelight.models.hed import Hed
from safelight.pipelines.annotate import annotate
from safelight.pipelines.control_settings import Control
from safelight.pipelines.load import load
from safelight.types import Conditioning
from tiny_model import FACTOR, SIZE, write_tiny_model

RECIPE = """
kind = "control"
output = "control"
base = "model"
data = {folders = [{path = "pictures"}], size = 32}
[hint]
column = "conditioning_image"
[control]
hint_channels = [4, 4, 8]
[optim]
lr = 3e-3
warmup = 1
[loop]
steps = 4
batch_size = 4
tensorboard = false
preview_every = 4
[preview]
columns = 2
steps = 2
"""
NARROW = "control.channels=[16, 32]"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, pictures with hints beside them, and a recipe."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("control")
    write_tiny_model(folder / "model")
    pictures = folder / "pictures"
    (pictures / "hints").mkdir(parents=True)
    rows = []
    for i in range(6):
        box = (4 + i, 6, 18 + i, 24)
        picture, hint = Image.new("RGB", (SIZE, SIZE), "white"), Image.new("RGB", (SIZE, SIZE))
        ImageDraw.Draw(picture).ellipse(box, fill="red")
        ImageDraw.Draw(hint).ellipse(box, outline="white")
        picture.save(pictures / f"{i}.png")
        hint.save(pictures / "hints" / f"{i}.png")
        name = f"hints/{i}.png"
        rows.append({"file_name": f"{i}.png", "text": "a red cube", "conditioning_image": name})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (pictures / "metadata.jsonl").write_text(text)
    (folder / "control.toml").write_text(RECIPE)
    return folder


def _bytes_in(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _outputs(model: Path, control: Path):
    """What the U-Net gives alone, and with a ControlNet."""
    unet, network = read_unet(model / "unet"), read_controlnet(control)
    torch.manual_seed(1)
    x, t = torch.randn(2, unet.config.in_channels, 8, 8), torch.tensor([500.0, 20.0])
    cond = Conditioning(context=torch.randn(2, 5, unet.config.cross_attention_dim or 0))
    hinted = Conditioning(context=cond.context, hints=(torch.rand(2, 3, 32, 32),))
    steered = Controlled(unet, [Steering(network, even_weights(network, 1.0))])
    with torch.no_grad():
        return unet(x, t, cond), steered(x, t, hinted)


@pytest.mark.parametrize("shape", [(), (NARROW,)], ids=["copied", "few channels"])
def test_it_begins_as_the_base_and_leaves_that_as_it_is(workshop: Path, tmp_path: Path, shape):
    before = _bytes_in(workshop / "model")
    plan = ControlPlan(channels=(16, 32) if shape else None, hint_channels=(4, 4, 8))
    unet = read_unet(workshop / "model/unet")
    write_controlnet(tmp_path / "fresh", planned(plan, unet, FACTOR))
    alone, steered = _outputs(workshop / "model", tmp_path / "fresh")
    assert torch.equal(steered, alone)

    whole = tmp_path / "whole"
    run_recipe(workshop / "control.toml", (f'output="{whole}"', *shape))
    alone, steered = _outputs(workshop / "model", whole / "model")
    assert not torch.allclose(steered, alone, atol=1e-4)
    assert _bytes_in(workshop / "model") == before
    with Image.open(whole / "previews/step_0000004.png") as preview:
        assert preview.size == (2 * SIZE, 3 * SIZE)  # hint, steered, alone

    control = read_control(whole / "model")
    assert isinstance(control, ControlNet)
    assert is_control(whole / "model")
    if shape:
        with pytest.raises(SafelightError, match="has no original layout"):
            write_control(tmp_path / "one.safetensors", control, torch.float32)
    hint = next((workshop / "pictures/hints").iterdir())
    steering = Control("edges", hint, hint=True, network=whole / "model")
    (made,) = load(workshop / "model", device="cpu").generate("a red cube", controls=[steering])
    assert made.image.size == (SIZE, SIZE)

    halves = tmp_path / "halves"
    run_recipe(workshop / "control.toml", (f'output="{halves}"', "loop.steps=2", *shape))
    run_recipe(workshop / "control.toml", (f'output="{halves}"', *shape), resume=True)
    states = [read_controlnet(folder / "model").state_dict() for folder in (whole, halves)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_annotators_and_recomputation_and_several_shapes(workshop: Path, tmp_path: Path):
    pytest.importorskip("cv2")
    changed = ('hint={annotator = "canny"}', "optim.recompute=true", "data.flip=true")
    outcome = run_recipe(workshop / "control.toml", (f'output="{tmp_path}"', *changed))
    assert outcome.step == 4


def test_it_goes_on_from_another_control(workshop: Path, tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    run_recipe(workshop / "control.toml", (f'output="{first}"', NARROW))
    start = (f'start="{first / "model"}"', "control={}")
    none = ("loop.steps=1", "optim.lr=1e-12", *start)
    run_recipe(workshop / "control.toml", (f'output="{tmp_path / "still"}"', *none))
    began = read_controlnet(first / "model").state_dict()
    still = read_controlnet(tmp_path / "still" / "model").state_dict()
    assert began.keys() == still.keys()
    assert all(torch.allclose(began[name], still[name], atol=1e-8) for name in began)

    run_recipe(workshop / "control.toml", (f'output="{second}"', *start))
    run_recipe(workshop / "control.toml", (f'output="{tmp_path / "half"}"', "loop.steps=2", *start))
    outcome = run_recipe(
        workshop / "control.toml", (f'output="{tmp_path / "half"}"', *start), resume=True
    )
    assert outcome.step == 4
    whole = read_controlnet(second / "model").state_dict()
    halves = read_controlnet(tmp_path / "half" / "model").state_dict()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    assert any(not torch.allclose(whole[name], began[name], atol=1e-4) for name in whole)


def _shown_hints(preview: Path) -> np.ndarray:
    with Image.open(preview) as picture:
        return np.asarray(picture)[:SIZE]


def test_options_of_the_annotator(workshop: Path, tmp_path: Path):
    hints = []
    for rate in (1, 8):
        changed = ('hint={annotator = "tile"}', f"hint.options.rate={rate}", "loop.steps=1")
        out = tmp_path / str(rate)
        run_recipe(workshop / "control.toml", (f'output="{out}"', "loop.preview_every=1", *changed))
        assert f"rate = {rate}" in (out / "recipe.toml").read_text()
        hints.append(_shown_hints(out / "previews/step_0000001.png"))
    sharp, coarse = (np.abs(np.diff(hint.astype(int), axis=0)).max() for hint in hints)
    assert sharp > 200 > 100 > coarse


def test_weights_of_the_annotator(workshop: Path, tmp_path: Path):
    pytest.importorskip("cv2")
    weights = str(tmp_path / "hed.safetensors")
    state = {
        re.sub(r"blocks\.(\d)", lambda stage: f"block{int(stage[1]) + 1}", name): tensor
        for name, tensor in Hed((2, 3, 4, 5, 6)).state_dict().items()
        if not name.startswith("combine")
    }
    save_file(state, weights)
    text = RECIPE.replace('column = "conditioning_image"', 'annotator = "softedge"')
    text = text.replace("[control]", 'weights = "hed.safetensors"\n[control]')
    (tmp_path / "soft.toml").write_text(text)
    there = [f'base="{workshop / "model"}"', f'data.folders=[{{path="{workshop / "pictures"}"}}]']
    run_recipe(tmp_path / "soft.toml", there)
    ours = _shown_hints(tmp_path / "control/previews/step_0000004.png")[:, :SIZE]
    picture = Image.open(workshop / "pictures/0.png")
    theirs = np.asarray(annotate("softedge", picture, weights=weights)).astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_where_weights_lie(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (workshop / "estimators/depth").mkdir(parents=True)
    text = RECIPE.replace(
        'column = "conditioning_image"', 'annotator = "depth"\nweights = "WEIGHTS"'
    )
    (workshop / "depth.toml").write_text(text.replace("WEIGHTS", "estimators/depth"))
    (workshop / "hub.toml").write_text(text.replace("WEIGHTS", "estimators/normal"))
    (workshop / "file.toml").write_text(text.replace("WEIGHTS", "depth.bin"))
    monkeypatch.chdir(tmp_path)
    said = {"depth": str(workshop / "estimators/depth"), "hub": "estimators/normal"}
    for name, weights in {**said, "file": str(workshop / "depth.bin")}.items():
        recipe = read_recipe(workshop / f"{name}.toml")
        assert isinstance(recipe, ControlRecipe)
        assert recipe.hint.weights == weights
    recipe = read_recipe(workshop / "depth.toml", ['hint.weights="here.bin"'])
    assert isinstance(recipe, ControlRecipe)
    assert recipe.hint.weights == str(tmp_path / "here.bin")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ('hint={column = "depth"}', "has no 'depth' in its metadata"),
        ('hint={annotator = "cany"}', "canny"),
        ("hint={}", "should name an annotator"),
        ('hint={annotator = "tile", options = {rat = 8}}', "tile.rat.*'rate'"),
        ('hint={annotator = "tile", options = {rate = 0.5}}', "between 1 and 64"),
        ('hint={annotator = "tile", options = {rate = "8"}}', "hint.options.rate should be"),
        ('hint={annotator = "tile", weights = "here"}', "leave the weights out"),
        ('hint={annotator = "depth"}', "give as weights"),
        ("hint.options={rate = 8}", "are of an annotator"),
        ("control.channels=[16]", "1 entries for 2 levels"),
        ("control.channels=[12, 32]", "multiples of 8"),
        ("control.hint_channels=[4, 4]", "shrink a hint by 2"),
        ('preview.prompts=["a"]', "preview.prompts do not go"),
        ('start="elsewhere"', "leave one of them out"),
        ('start="elsewhere";control={}', "no ControlNet to go on from"),
        ('start="model/unet";control={}', "ControlNet"),
    ],
)
def test_a_recipe_that_cannot_work_ends_in_one_line(
    workshop, tmp_path, monkeypatch, changed, message
):
    monkeypatch.chdir(workshop)
    with pytest.raises(SafelightError, match=message):
        run_recipe(workshop / "control.toml", (f'output="{tmp_path / "out"}"', *changed.split(";")))
    assert not (tmp_path / "out").exists()
