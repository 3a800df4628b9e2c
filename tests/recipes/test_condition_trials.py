"""Pictures of a whole batch are those that each condition makes by itself."""

import json
from pathlib import Path

import condition_trials
import numpy as np
import pytest
import torch
from condition_trials import ask, draw_masks, fill, inputs, make
from PIL import Image

from safelight.app.training import run_recipe
from safelight.eval.pictures import PictureSet, read_pictures
from safelight.pictures import to_image
from safelight.pipelines.condition_settings import ImagePrompt
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.load import load
from safelight.pipelines.request import Request
from tiny_model import SIZE, write_tiny_model

RECIPE = """
kind = "latent"
output = "told"
base = "model"
data = {folders = [{path = "pictures"}], size = 32}
conditions = [
    {kind = "layout", most = 3},
    {kind = "class"},
    {kind = "low_resolution"},
    {kind = "semantic", palette = {red = "#ff0000", green = "#00ff00"}},
    {kind = "depth", column = "conditioning_image", detail = 2},
    {kind = "image", encoder = "efficientnet-lite0"},
]
[optim]
lr = 3e-2
warmup = 1
[loop]
steps = 3
batch_size = 3
tensorboard = false
"""
KINDS = ("class", "depth", "semantic", "layout")
CLASSES = ("red cube", "blue ball", "person")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model told everything, and three pictures with what it is told of them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trials")
    write_tiny_model(folder / "model")
    (folder / "pictures/maps").mkdir(parents=True)
    rows = []
    for i, name in enumerate(CLASSES):
        for file in (f"{i}.png", f"maps/{i}.png"):
            levels = np.random.default_rng([i, len(file)]).integers(0, 255, (SIZE, SIZE, 3))
            Image.fromarray(levels.astype(np.uint8)).save(folder / "pictures" / file)
        box = {"label": f"a {name}", "box": [0.1 * i, 0.1, 0.6, 0.5 + 0.1 * i]}
        row = {"file_name": f"{i}.png", "text": f"a {name}", "class": name, "boxes": [box]}
        maps = {"conditioning_image": f"maps/{i}.png", "semantic": f"maps/{i}.png"}
        rows.append(json.dumps(row | maps))
    (folder / "pictures/metadata.jsonl").write_text("\n".join(rows))
    (folder / "recipe.toml").write_text(RECIPE)
    run_recipe(folder / "recipe.toml", ())
    return folder


@pytest.fixture
def pipeline(house: Path, monkeypatch: pytest.MonkeyPatch) -> ImagePipeline:
    monkeypatch.setattr(condition_trials, "BATCH", 2)  # so that the last batch is smaller
    return load(house / "told/model")


@pytest.fixture(scope="module")
def real(house: Path) -> PictureSet:
    return read_pictures(house / "pictures", SIZE)


def _alone(pipeline: ImagePipeline, place: int, prompt: str, **asked) -> torch.Tensor:
    """One picture by itself, from the seed that its place has in a batch."""
    led = pipeline.read(Request(prompt, **asked))
    return pipeline.sample([prompt], [place], pipeline.settle(Request("")), led=led)[0]


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), ("low_resolution",), KINDS])
def test_each_row_is_told_its_own_conditions(
    pipeline: ImagePipeline, real: PictureSet, kinds: tuple[str, ...]
):
    made = make(pipeline, real, kinds, prompted=True)
    for place, item in enumerate(real.items):
        asked = tuple(ask(kind, item, real.pixels[place]) for kind in kinds)
        one = _alone(pipeline, place, real.prompts[place], conditions=asked)
        torch.testing.assert_close(made[place], one, atol=1e-4, rtol=0)
    others = make(pipeline, real, prompted=True)
    assert (made - others).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_each_row_sees_its_own_picture_without_a_prompt(pipeline: ImagePipeline, real: PictureSet):
    made = make(pipeline, real, prompted=False, seen=True)
    for place, pixels in enumerate(real.pixels):
        one = _alone(pipeline, place, "", image_prompts=(ImagePrompt(to_image(pixels)),))
        torch.testing.assert_close(made[place], one, atol=1e-4, rtol=0)
    others = make(pipeline, real, prompted=False)
    assert (made - others).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_a_map_has_a_scale_of_its_own(pipeline: ImagePipeline, real: PictureSet):
    made = make(pipeline, real, ("depth",), prompted=False, map_scale=4.0)
    asked = (ask("depth", real.items[0], real.pixels[0], 4.0),)
    torch.testing.assert_close(
        made[0], _alone(pipeline, 0, "", conditions=asked), atol=1e-4, rtol=0
    )
    plain = make(pipeline, real, ("depth",), prompted=False)
    assert (made - plain).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_each_hole_is_filled_for_its_own_prompt(house: Path, real: PictureSet):
    pipeline, masks = load(house / "model"), draw_masks(3, SIZE)
    made = fill(pipeline, real, masks)
    for place, mask in enumerate(masks):
        hole = Image.fromarray((255 * mask.numpy()).astype(np.uint8))
        image = to_image(real.pixels[place])
        said = {"image": image, "mask": hole, "strength": 1.0, "mask_blur": 0}
        [one] = pipeline.generate(real.prompts[place], seed=place, **said)
        levels = torch.from_numpy(np.asarray(one.image, dtype=int))
        ours = torch.from_numpy(np.asarray(to_image(made[place]), dtype=int))
        assert (levels - ours)[mask].abs().max() <= 1


@pytest.mark.parametrize("kind", [*KINDS, "low_resolution"])
def test_what_was_told_is_shown_picture_by_picture(real: PictureSet, kind: str):
    shown = inputs(kind, real)
    assert shown.shape == real.pixels.shape
    assert len(torch.unique(shown, dim=0)) == 3
