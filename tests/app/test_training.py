import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from safelight.app import recipe_choice, training
from safelight.app.recipe import AutoencoderRecipe, LatentRecipe, read_recipe
from safelight.app.recipe_choice import choose_recipes
from safelight.app.training import run_recipe, train_source
from safelight.app.training_cost import in_words
from safelight.checkpoints.files import read_state
from safelight.checkpoints.folder import read_folder
from safelight.config import read_toml
from safelight.errors import SafelightError
from safelight.pipelines.load import load
from safelight.train.checkpoint import checkpoints

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
        (("device=gpu",), "gpu"),
        (("loop.steps=0",), r"loop\.steps"),
    ],
)
def test_mistakes_are_one_line(
    workshop: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
):
    with pytest.raises(SafelightError, match=message) as error:
        run_recipe(workshop / "unet.toml", (f"output={tmp_path / 'out'}", *overrides))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out/checkpoints").exists()


def test_a_missing_recipe_is_named(tmp_path: Path):
    with pytest.raises(SafelightError, match=r"No recipe .*none\.toml"):
        run_recipe(tmp_path / "none.toml")


def test_recipes_are_chosen_for_a_folder(workshop: Path, tmp_path: Path):
    choice = choose_recipes(workshop / "pictures", tmp_path, workshop / "unet/model", "cpu")
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
    choice = choose_recipes(tmp_path / "pictures", tmp_path, workshop / "unet/model", "cpu")
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
        choose_recipes(workshop / "pictures", tmp_path, workshop / "unet/model", "cpu")


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
