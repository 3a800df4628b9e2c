"""Recipes of flows and of EDM: trained, previewed, written, opened by diffusers, sampled."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from safelight.app.training import run_recipe
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.checkpoints.scheduler_files import scheduler_to_diffusers
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.config import from_dict
from safelight.diffusion import objective, parameterization
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.noise_schedule import (
    DiscreteSchedule,
    EdmSchedule,
    FlowSchedule,
    scaled_linear_betas,
)
from safelight.diffusion.parameterization import Edm
from safelight.errors import SafelightError
from safelight.pipelines.load import load
from safelight.train.latent_task import ObjectiveConfig, latent_objective
from tiny_model import SIZE

RECIPE = """
kind = "latent"
output = "out"
base = "{base}"
data = {{folders = [{{path = "pictures"}}], size = 32}}
[diffusion]
{diffusion}
[objective]
{objective}
[defaults]
sampler = "{sampler}"
steps = 4
scale = 2.0
[optim]
lr = 1e-3
warmup = 1
precision = "float32"
[loop]
steps = 4
batch_size = 4
log_every = 1
tensorboard = false
preview_every = 4
[preview]
columns = 2
steps = 3
"""
KINDS = {
    "solver's flow": (
        'class_name = "DPMSolverMultistepScheduler"\nuse_flow_sigmas = true\nflow_shift = 2.0\n'
        'prediction_type = "flow_prediction"',
        'sigmas = "uniform"',
        "dpmpp_2m",
    ),
    "flow": (
        'class_name = "FlowMatchEulerDiscreteScheduler"\nshift = 3.0',
        'sigmas = "logit_normal"',
        "euler",
    ),
    "edm": (
        'class_name = "EDMEulerScheduler"\nsigma_max = 40.0',
        'sigmas = "log_normal"\nmean = -0.4\nstd = 1.2\nweight = "edm"',
        "heun",
    ),
    "edm v": (
        'class_name = "EDMDPMSolverMultistepScheduler"\nprediction_type = "v_prediction"',
        'sigmas = "uniform"',
        "dpmpp_2m",
    ),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parameterizations")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        picture = Image.new("RGB", (SIZE, SIZE), tuple(rng.integers(0, 255, 3).tolist()))
        ImageDraw.Draw(picture).ellipse((6, 6, 24, 24), fill=tuple(rng.integers(0, 255, 3)))
        picture.save(folder / "pictures" / f"ball {i}.png")
    return folder


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, pictures: Path, model_folder: Path) -> Path:
    """The output of a recipe of each kind."""
    diffusion, wanted, sampler = KINDS[request.param]
    output = pictures / request.param.replace(" ", "_").replace("'", "")
    recipe = pictures / f"{output.name}.toml"
    recipe.write_text(
        RECIPE.format(base=model_folder, diffusion=diffusion, objective=wanted, sampler=sampler)
    )
    run_recipe(recipe, (f"output={output}",))
    return output


def test_it_learns_and_shows_what_it_learns(trained: Path):
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses
    assert all(0 < loss < 20 for loss in losses)  # of targets of about unit variance
    with Image.open(trained / "previews/step_0000004.png") as preview:
        assert preview.size == (2 * SIZE, 2 * SIZE)
        assert np.asarray(preview).std() > 1


def test_it_is_sampled_by_every_sampler_that_goes_with_it(trained: Path):
    pipeline = load(trained / "model", device="cpu")
    (plain,) = pipeline.generate("ball", seed=3)
    assert plain.manifest.sampler == pipeline.folder.defaults.sampler
    for sampler in pipeline.folder.scheduler.samplers:
        (made,) = pipeline.generate("ball", seed=3, sampler=sampler)
        assert made.image.size == (SIZE, SIZE)
        assert np.asarray(made.image).std() > 1, sampler


def test_diffusers_makes_the_same_picture_of_it(trained: Path, tmp_path: Path):
    folder = read_folder(trained / "model")
    scheduler = folder.scheduler
    if scheduler.class_name == "FlowMatchEulerDiscreteScheduler":
        # which diffusers' pipelines of U-Nets do not take; they take its solver of the same flow
        scheduler = scheduler.with_sampler("dpmpp_2m")
    write_folder(tmp_path / "model", replace(folder, scheduler=scheduler))
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    theirs.set_progress_bar_config(disable=True)
    assert type(theirs.scheduler).__name__ == scheduler.class_name
    wanted = theirs(
        "a red cube",
        num_inference_steps=6,
        guidance_scale=3.0,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]
    ours = load(trained / "model", device="cpu")
    (made,) = ours.generate("a red cube", steps=6, scale=3.0, seed=7, sampler=scheduler.sampler)
    difference = np.abs(np.asarray(made.image, dtype=np.float32) - np.round(wanted * 255))
    assert difference.max() <= 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("diffusion.class_name=DDIMSchedular",), "'DDIMSchedular'. Did you mean 'DDIMScheduler'"),
        (
            ("diffusion.class_name=PNDMScheduler", "diffusion.rescale_betas_zero_snr=true"),
            "no zero terminal SNR",
        ),
        (("defaults.sampler=eular",), "Unknown sampler 'eular'. Did you mean 'euler"),
        (("defaults.steps=1001",), "1 to 1000 steps, got 1001"),
        (
            ("diffusion.class_name=FlowMatchEulerDiscreteScheduler", "defaults.sampler=heun"),
            "heun does not go with this model's noise levels",
        ),
        (("diffusion.use_flow_sigmas=true",), "DDIMScheduler has no use_flow_sigmas"),
        (("diffusion.prediction_type=flow_prediction",), "needs use_flow_sigmas"),
        (
            ("diffusion.class_name=EDMEulerScheduler", "diffusion.prediction_type=sample"),
            "'sample' does not go with the noise levels of EDMEulerScheduler",
        ),
        (
            ("diffusion.class_name=EDMEulerScheduler", "diffusion.sigma_data=0"),
            "sigma_data and rho should be above 0",
        ),
        (
            ("diffusion.class_name=EDMEulerScheduler", "diffusion.sigma_min=90"),
            "0 < sigma_min < sigma_max",
        ),
        (
            ("diffusion.class_name=FlowMatchEulerDiscreteScheduler", "diffusion.shift=0"),
            "shift > 0",
        ),
    ],
)
def test_what_could_not_be_used_is_refused_before_training(
    pictures: Path, model_folder: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
):
    recipe = pictures / "plain.toml"
    recipe.write_text(RECIPE.format(base=model_folder, diffusion="", objective="", sampler="euler"))
    with pytest.raises(SafelightError, match=message) as error:
        run_recipe(recipe, (f"output={tmp_path / 'out'}", *overrides))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


NEW = """
kind = "latent"
output = "out"
autoencoder = "{base}"
data = {{folders = [{{path = "pictures"}}], size = 32}}
[unet]
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
"""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("text.vocab_size=300",), r"\[text\] vocab_size should be 514 or more .* got 300"),
        (("text.length=1",), r"\[text\] length should be 3 tokens or more, got 1"),
        (("text.tower.num_attention_heads=3",), "hidden_size = 16 does not split into .* = 3"),
        (("text.tower.num_attention_heads=0",), "does not split into .* = 0"),
        (("diffusion.class_name=MyOwnScheduler",), "Unknown scheduler class"),
    ],
)
def test_a_new_models_parts_are_checked(
    pictures: Path, model_folder: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
):
    recipe = pictures / "new.toml"
    recipe.write_text(NEW.format(base=model_folder))
    with pytest.raises(SafelightError, match=message) as error:
        run_recipe(recipe, (f"output={tmp_path / 'out'}", *overrides))
    assert "\n" not in str(error.value)


def test_the_recipes_in_the_pages_are_recipes():
    page = (Path(__file__).parents[2] / "docs/checkpoints.md").read_text()
    kinds: list[str] = []
    for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL):
        values = tomllib.loads(block)
        scheduler = from_dict(SchedulerConfig, values["diffusion"])
        sampler = values.get("defaults", {}).get("sampler", "euler")
        assert len(scheduler.with_sampler(sampler).sigmas(4)) == 5
        assert scheduler_to_diffusers(scheduler)["_class_name"] == scheduler.class_name
        config = from_dict(ObjectiveConfig, values["objective"])
        _objective(config, scheduler.parameterization(), scheduler.schedule())
        kinds.append(scheduler.levels)
    assert kinds == ["flow", "edm"]


SIGMA = torch.tensor([0.1, 1.0, 20.0])


def _objective(config: ObjectiveConfig, meaning, schedule):
    return latent_objective(config, Denoiser(lambda x, t, cond: x, meaning, schedule))


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        ("uniform", objective.uniform_time(FlowSchedule(3.0), 3.0)),
        ("logit_normal", objective.logit_normal(0.0, 1.0, 3.0)),
        ("log_normal", objective.log_normal(0.0, 1.0)),
    ],
)
def test_a_flow_is_trained_where_its_shift_samples_it(kind, law):
    found = _objective(ObjectiveConfig(sigmas=kind), parameterization.flow, FlowSchedule(3.0))
    draws = [draw(64, torch.Generator().manual_seed(1)) for draw in (found.sigmas, law)]
    assert torch.equal(*draws)


def test_the_edm_weight_knows_the_networks_sigma_data():
    config = ObjectiveConfig(weight="edm")
    network = SchedulerConfig(class_name="EDMEulerScheduler", sigma_data=1.3).parameterization()
    assert network == Edm(1.3)
    weight = _objective(config, network, EdmSchedule()).weight(SIGMA)
    torch.testing.assert_close(weight, torch.ones(3))

    table = DiscreteSchedule.from_betas(scaled_linear_betas())
    weight = _objective(config, parameterization.x0, table).weight(SIGMA)
    torch.testing.assert_close(weight, (SIGMA**2 + 1) / SIGMA**2)  # latents of unit variance
    said = ObjectiveConfig(weight="edm", sigma_data=0.5)
    weight = _objective(said, parameterization.x0, table).weight(SIGMA)
    torch.testing.assert_close(weight, (SIGMA**2 + 0.25) / (0.5 * SIGMA) ** 2)
