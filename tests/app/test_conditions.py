"""Trainings under conditions beside the caption, and pictures made under them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from safelight.app.cli import main
from safelight.app.conditions_training import new_weights
from safelight.app.training import run_recipe
from safelight.checkpoints.conditions import Beside
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.conditioners.conditions import Class, Depth
from safelight.errors import SafelightError
from safelight.models.layout import LayoutEncoder, LayoutEncoderConfig
from safelight.models.widening import widened
from safelight.pipelines.beginning import Led
from safelight.pipelines.condition_settings import Condition
from safelight.pipelines.conditions import joined
from safelight.pipelines.given import Given, give
from safelight.pipelines.guidance_settings import Guidance, Projection
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.load import load
from safelight.pipelines.request import Request
from safelight.types import Box, Conditioning
from tiny_model import SIZE, tiny_folder, write_tiny_model

RECIPE = """
kind = "latent"
output = "all"
base = "model"
data = {folders = [{path = "pictures"}], size = 32, flip = true}
conditions = [
    {kind = "layout", most = 3, dropout = 0.5},
    {kind = "class", dropout = 0.5},
    {kind = "low_resolution", factor = 4, dropout = 0.5},
    {kind = "semantic", palette = {red = "#ff0000", green = "#00ff00"}, dropout = 0.5},
    {kind = "depth", column = "depth", detail = 2, dropout = 0.5},
    {kind = "inpainting", dropout = 0.5},
]
[optim]
lr = 1e-2
warmup = 1
[loop]
steps = 4
batch_size = 4
save_every = 2
tensorboard = false
preview_every = 4
[preview]
columns = 2
steps = 2
"""
DEPTH = 'conditions=[{kind = "depth", column = "depth"}]'
KINDS = ["inpainting", "depth", "semantic", "low_resolution", "class", "layout"]


def _picture(seed: int, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, pictures with all that conditions need, and a training under all of them."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("conditions")
    write_tiny_model(folder / "model")
    pictures = folder / "pictures"
    (pictures / "maps").mkdir(parents=True)
    rows = []
    for i in range(6):
        _picture(i, (40, 32)).save(pictures / f"{i}.png")
        _picture(10 + i, (40, 32)).save(pictures / f"maps/{i}.png")
        boxes = [{"label": "a red cube", "box": [0.2, 0.1, 0.6, 0.7]}]
        row = {"file_name": f"{i}.png", "text": "a red cube", "depth": f"maps/{i}.png"}
        row |= {"semantic": f"maps/{i}.png", "class": ["cube", "ball"][i % 2], "boxes": boxes}
        rows.append(json.dumps(row))
    (pictures / "metadata.jsonl").write_text("\n".join(rows))
    (folder / "recipe.toml").write_text(RECIPE)
    run_recipe(folder / "recipe.toml", ())
    return folder


@pytest.fixture(scope="module")
def pipeline(workshop: Path) -> ImagePipeline:
    return load(workshop / "all/model")


@pytest.fixture(scope="module")
def given() -> dict[str, Image.Image]:
    mask = Image.new("L", (SIZE, SIZE))
    mask.paste(255, (0, 0, 24, SIZE))
    return {"image": _picture(20), "mask": mask}


ASKED = {
    "depth": Condition("depth", _picture(21)),
    "semantic": Condition("semantic", _picture(22)),
    "low_resolution": Condition("low_resolution", _picture(23, (8, 8))),
    "class": Condition("class", "cube"),
    "layout": Condition("layout", (Box("a red cube", (0.1, 0.2, 0.6, 0.9)),)),
}


def _made(pipeline: ImagePipeline, given: dict[str, Image.Image], *asked: Condition, **others):
    said = {"steps": 2, "seed": 1, "scale": 3.0} | others
    [made] = pipeline.generate("a red cube", **given, conditions=asked, **said)
    return np.asarray(made.image, dtype=int)


def test_the_model_says_what_it_has_learned_and_comes_back_from_its_folder(workshop, tmp_path):
    said = json.loads((workshop / "all/model/conditions.json").read_text())
    assert [row["kind"] for row in said["conditions"]] == KINDS
    folder = read_folder(workshop / "all/model")
    assert folder.unet.config.in_channels == 4 + 5 + 4 + 2 + 3
    assert folder.unet.config.class_dim == 3
    write_folder(tmp_path / "again", folder)
    again = read_folder(tmp_path / "again")
    assert again.beside.conditions == folder.beside.conditions
    assert folder.beside.layout is not None
    assert again.beside.layout is not None
    ours, theirs = folder.beside.layout.state_dict(), again.beside.layout.state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())


def test_a_widened_u_net_gives_at_first_what_it_gave():
    unet = tiny_folder().unet
    wide = widened(unet, 6, 3)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 900.0])
    context = torch.randn(2, 5, 32)
    told = Conditioning(
        context=context, concat=torch.randn(2, 6, 8, 8), vector=torch.eye(3)[:2].float()
    )
    with torch.no_grad():
        torch.testing.assert_close(wide(x, t, told), unet(x, t, Conditioning(context=context)))


def test_what_a_model_has_to_learn_anew_is_known():
    base = tiny_folder()
    wide = widened(base.unet, 6, 3)
    layout = LayoutEncoder(LayoutEncoderConfig(label_dim=8, token_dim=32))
    model = replace(base, unet=wide, beside=Beside((Depth(), Class(names=("a", "b", "c"))), layout))
    fresh = {id(new.parameter): new.first for new in new_weights(base, model)}
    assert fresh.pop(id(wide.conv_in.weight)) == 4
    assert fresh.pop(id(wide.class_embedding.weight)) == 0
    assert fresh == {id(parameter): 0 for parameter in layout.parameters()}
    assert new_weights(model, model) == []


def test_a_resumed_training_goes_on_to_the_bit(workshop: Path, tmp_path: Path):
    output = f'output="{tmp_path}/out"'
    run_recipe(workshop / "recipe.toml", (output, "loop.steps=2"))
    run_recipe(workshop / "recipe.toml", (output,), resume=True)
    for part in ("unet", "layout_encoder", "text_encoder"):
        [ours] = (tmp_path / "out/model" / part).glob("*.safetensors")
        [theirs] = (workshop / "all/model" / part).glob("*.safetensors")
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("kind", ASKED)
def test_each_condition_changes_the_picture_and_none_does_not_need_the_others(
    pipeline: ImagePipeline, given, kind: str
):
    assert (_made(pipeline, given) != _made(pipeline, given, ASKED[kind])).any()


def test_a_scale_of_its_own_leads_further(pipeline: ImagePipeline, given):
    plain = _made(pipeline, given, ASKED["depth"], ASKED["class"])
    one = _made(pipeline, given, replace(ASKED["depth"], scale=1.0), ASKED["class"])
    assert (plain == one).all()  # a map is told on both sides where nobody says
    led = _made(pipeline, given, replace(ASKED["depth"], scale=6.0), ASKED["class"])
    assert (plain != led).any()
    # the same scale for class and prompt is one guidance, up to the rounding of a batch
    by_prompt = _made(pipeline, given, replace(ASKED["class"], scale=3.0), scale=3.0)
    assert abs(by_prompt - _made(pipeline, given, ASKED["class"], scale=3.0)).max() <= 1
    alone = _made(pipeline, given, replace(ASKED["class"], scale=6.0), scale=1.0)
    assert (alone != _made(pipeline, given, ASKED["class"], scale=1.0)).any()


def test_rows_of_a_batch_have_conditions_of_their_own(pipeline: ImagePipeline, given):
    whole = Given(give("image", given["image"]), give("mask", given["mask"]))
    request = Request("a red cube", steps=2, scale=3.0, given=whole)
    settings = pipeline.settle(request)
    asked = [[ASKED["depth"], Condition("class", name)] for name in ("cube", "ball")]
    rows = [pipeline.read(Request("", conditions=tuple(row))) for row in asked]
    led = Led(conditions=joined([row.conditions for row in rows]))
    both = pipeline.sample(["a red cube"] * 2, [1, 1], settings, given=whole, led=led)
    for place, row in enumerate(rows):
        one = pipeline.sample(["a red cube"], [1], settings, given=whole, led=row)
        torch.testing.assert_close(both[place], one[0], atol=1e-4, rtol=0)
    assert (both[0] - both[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("asked", "others", "told"),
    [
        ((Condition("dept", "x.png"),), {}, "has not learned a condition 'dept'; it has depth"),
        ((Condition("inpainting", "x.png"),), {}, "by an image and a mask"),
        ((Condition("class", "cone"),), {}, "no class 'cone'. Did you mean 'cube'"),
        ((Condition("layout", "a cube"),), {}, "told by boxes"),
        ((Condition("layout", (Box("a", (0.0, 0.0, 1.0, 1.0)),) * 4),), {}, "3 boxes at most"),
        ((Condition("depth", (Box("a", (0.0, 0.0, 1.0, 1.0)),)),), {}, "is a picture, not boxes"),
        ((Condition("class", "cube", -1.0),), {}, "scale of condition class"),
        ((Condition("class", "cube"), Condition("class", "ball")), {}, "more than once"),
        (
            (Condition("class", "cube", 2.0),),
            {"guidance": Guidance(apg=Projection(eta=0.0))},
            "apg does not go with the own scale",
        ),
        (
            (Condition("class", "cube", 2.0),),
            {"negative": "x", "guidance": Guidance(perp_neg=1.0)},
            "perp_neg does not go",
        ),
    ],
)
def test_what_cannot_be_is_one_line(pipeline: ImagePipeline, given, asked, others, told: str):
    with pytest.raises(SafelightError, match=told):
        pipeline.generate("a red cube", **given, conditions=asked, **others)


def test_a_model_that_has_learned_none_says_so(workshop: Path):
    with pytest.raises(SafelightError, match="it has none"):
        load(workshop / "model").generate("a red cube", conditions=[ASKED["class"]])


def test_from_the_command_line_and_made_again(workshop: Path, tmp_path: Path, capsys, given):
    for name, picture in given.items():
        picture.save(tmp_path / f"{name}.png")
    _picture(21).save(tmp_path / "depth.png")
    boxes = [{"label": "a red cube", "box": [0.1, 0.2, 0.5, 0.6]}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    said = ["generate", "a red cube", "--model", str(workshop / "all/model"), "--steps", "2"]
    said += ["--image", str(tmp_path / "image.png"), "--mask", str(tmp_path / "mask.png")]
    said += ["--condition", "class=cube", "--condition", f"depth={tmp_path / 'depth.png'}"]
    said += ["--condition", "layout=a blue ball@0.5,0.5,1,1"]
    said += ["--condition", f"layout={tmp_path / 'boxes.json'}", "--condition-scale", "depth=2"]
    assert main([*said, "-o", str(tmp_path / "made.png")]) == 0
    capsys.readouterr()
    assert main(["rerun", str(tmp_path / "made.png"), "-o", str(tmp_path / "again.png")]) == 0
    assert "the same pixels" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "made.png")]) == 0
    manifest = json.loads(capsys.readouterr().out)
    kinds = {row["kind"]: row for row in manifest["conditions"]}
    assert list(kinds) == ["class", "depth", "layout"]
    assert kinds["depth"]["scale"] == 2
    assert kinds["class"]["name"] == "cube"
    assert [box["label"] for box in kinds["layout"]["boxes"]] == ["a blue ball", "a red cube"]
    _picture(22).save(tmp_path / "depth.png")
    assert main(["rerun", str(tmp_path / "made.png")]) == 2
    assert "is not the picture of condition depth then" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--condition", "class"], "--condition should be such as"),
        (["--condition", "layout=a cube@0,0,1"], "A box should be such as"),
        (["--condition", "layout=none.json"], "cannot be read as a list of boxes"),
        (["--condition", "class=a", "--condition", "class=b"], "more than once"),
        (["--condition-scale", "class=2"], "is for no condition. Give --condition"),
        (["--condition", "class=a", "--condition-scale", "clas=2"], "Did you mean 'class'"),
        (["--condition", "class=a", "--condition-scale", "class=x"], "should be such as depth=2"),
    ],
)
def test_options_that_are_none_are_told_before_a_model_is_read(options, told: str, capsys):
    assert main(["generate", "a red cube", *options]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (['conditions=[{kind = "depth"}]'], "needs an annotator, or a column"),
        (['conditions=[{kind = "dept"}]'], "Did you mean 'depth'"),
        (['conditions=[{kind = "class", annotator = "canny"}]'], "takes no annotator"),
        (['conditions=[{kind = "inpainting", column = "depth"}]'], "made of the picture itself"),
        (['conditions=[{kind = "depth", column = "depth", most = 2}]'], "Unknown key"),
        (['conditions=[{kind = "depth", column = "depth", detail = 3}]'], "divide the 4 pixels"),
        (['conditions=[{kind = "depth", column = "gone"}]'], "no 'gone' in its metadata"),
        (['conditions=[{kind = "class", names = ["cube"]}]'], "no class 'ball'"),
        (['conditions=[{kind = "class", dropout = 2}]'], "between 0 and 1"),
        ([DEPTH, 'preview.prompts=["a"]'], "do not go with"),
        ([DEPTH, 'base="all/model"'], "has the same"),
    ],
)
def test_recipes_that_cannot_be_are_one_line(
    workshop: Path, tmp_path: Path, overrides, told, monkeypatch
):
    monkeypatch.chdir(workshop)
    with pytest.raises(SafelightError, match=told):
        run_recipe(workshop / "recipe.toml", (f'output="{tmp_path}/out"', *overrides))
    assert not (tmp_path / "out/model").exists()


def test_a_model_goes_on_from_its_own_conditions(workshop: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(workshop)
    overrides = (f'output="{tmp_path}/out"', 'base="all/model"', "loop.steps=1")
    run_recipe(workshop / "recipe.toml", overrides)
    before, after = (read_folder(path / "model") for path in (workshop / "all", tmp_path / "out"))
    assert before.beside.conditions == after.beside.conditions
    assert before.unet.config == after.unet.config


def test_inpainting_alone_is_a_model_as_published(workshop: Path, tmp_path: Path, given):
    alone = 'conditions=[{kind = "inpainting"}]'
    run_recipe(workshop / "recipe.toml", (f'output="{tmp_path}/out"', alone, "loop.steps=1"))
    index = json.loads((tmp_path / "out/model/model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionInpaintPipeline"
    pipeline = load(tmp_path / "out/model")
    assert pipeline.kind.beside == "mask"
    kept = _made(pipeline, given)[:, -4:]
    assert (kept == np.asarray(given["image"])[:, -4:]).all()


def test_a_small_picture_says_the_size_of_what_is_made(workshop: Path, tmp_path: Path):
    alone = 'conditions=[{kind = "low_resolution", factor = 2}]'
    run_recipe(workshop / "recipe.toml", (f'output="{tmp_path}/out"', alone, "loop.steps=1"))
    pipeline = load(tmp_path / "out/model")
    [made] = pipeline.generate(
        "", steps=1, conditions=[Condition("low_resolution", _picture(1, (12, 10)))]
    )
    assert made.image.size == (24, 20)


def test_a_folder_is_converted_with_its_conditions_and_one_file_has_no_place_for_them(
    workshop: Path, tmp_path: Path, capsys
):
    model = str(workshop / "all/model")
    assert main(["convert", model, str(tmp_path / "again")]) == 0
    again = read_folder(tmp_path / "again")
    assert [condition.kind for condition in again.beside.conditions] == KINDS
    capsys.readouterr()
    assert main(["convert", model, str(tmp_path / "one.safetensors")]) == 2
    assert "is written as a folder" in capsys.readouterr().err
    assert not (tmp_path / "one.safetensors").exists()
