"""Whole text-to-image loops against diffusers' pipelines: the same seed gives the same picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import safelight
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.conditioners.text import TextConditioner
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.models.tokenizer import ClipTokenizer
from safelight.rng import SeededNoise

from .conftest import shaken

STEPS, SIZE, SEED = 20, 16, 7
PROMPT, NEGATIVE = "a red cube left of a blue ball!", "grey mush"
SCHEDULERS = {
    "ddim": DDIMScheduler,
    "plms": PNDMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "heun": HeunDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
}
BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
OWN = {"ddim": {"clip_sample": False}, "plms": {"skip_prk_steps": True}}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A tiny Stable Diffusion of random weights, in diffusers."""
    torch.manual_seed(3)
    words = tmp_path_factory.mktemp("tokenizer")
    ClipTokenizer.train([PROMPT, NEGATIVE], vocab_size=540, length=24).save(words)
    tokenizer = CLIPTokenizer.from_pretrained(words)
    size = len(tokenizer)
    tower = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=24,
            bos_token_id=size - 2,
            eos_token_id=size - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=32,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        sample_size=SIZE,
        scaling_factor=0.4,
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": shaken(tower),
        "unet": shaken(unet),
        "vae": shaken(vae),
    }


def _pipeline(parts, scheduler):
    pipeline = StableDiffusionPipeline(
        **parts,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _theirs(pipeline, scale=4.0, size=(SIZE, SIZE)):
    return pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        height=size[0],
        width=size[1],
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
    ).images


def _ours(folder, scale=4.0, size=(SIZE, SIZE), steps=STEPS):
    scheduler, autoencoder = folder.scheduler, folder.autoencoder
    text = TextConditioner(folder.tokenizers, folder.text_towers)
    denoiser = Denoiser(folder.unet, scheduler.parameterization(), scheduler.schedule())
    denoise = cfg(denoiser, text([PROMPT]), text([NEGATIVE]), scale)
    sigmas, noise = scheduler.sigmas(steps), SeededNoise([SEED])
    shape = (1, 4, size[0] // autoencoder.factor, size[1] // autoencoder.factor)
    x = noise(shape, 0) * scheduler.initial_scale(sigmas)
    x = scheduler.solver(steps)(denoise, x, sigmas, noise=noise)
    pixels = autoencoder.decode(autoencoder.unscale(x * scheduler.final_scale(sigmas)))
    return (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _agree(ours, theirs, tolerance=1 / 255):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05  # a picture, not a plain colour
    assert np.abs(ours - theirs).max() <= tolerance


@pytest.mark.parametrize(
    ("sampler", "options"),
    [(sampler, {"prediction_type": "epsilon"}) for sampler in SCHEDULERS]
    + [(sampler, {"prediction_type": "v_prediction"}) for sampler in ("ddim", "plms", "dpmpp_2m")]
    + [("ddim", {"timestep_spacing": "linspace"})],
)
def test_a_picture_agrees_with_each_sampler(parts, sampler, options, tmp_path):
    options = BETAS | OWN.get(sampler, {}) | options
    pipeline = _pipeline(parts, SCHEDULERS[sampler](**options))
    pipeline.save_pretrained(tmp_path)
    folder = read_folder(tmp_path)
    assert folder.scheduler.sampler == sampler
    _agree(_ours(folder), _theirs(pipeline))


@pytest.mark.parametrize(
    ("scale", "size"), [(1.0, (SIZE, SIZE)), (7.5, (SIZE + 8, SIZE)), (2.0, (SIZE, SIZE + 8))]
)
def test_a_picture_agrees_at_other_scales_and_sizes(parts, scale, size, tmp_path):
    pipeline = _pipeline(parts, EulerDiscreteScheduler(**BETAS))
    pipeline.save_pretrained(tmp_path)
    _agree(_ours(read_folder(tmp_path), scale, size), _theirs(pipeline, scale, size))


def test_a_picture_agrees_at_zero_terminal_snr(parts, tmp_path):
    options = {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
        "clip_sample": False,
    }
    pipeline = _pipeline(parts, DDIMScheduler(**BETAS, **options))
    pipeline.save_pretrained(tmp_path)
    _agree(_ours(read_folder(tmp_path)), _theirs(pipeline))


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_diffusers_makes_the_same_picture_of_what_we_write(parts, shift, tmp_path):
    options = BETAS | {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    _pipeline(parts, DDIMScheduler(**options, clip_sample=False)).save_pretrained(tmp_path / "a")
    folder = read_folder(tmp_path / "a")
    folder.autoencoder.config = replace(folder.autoencoder.config, shift_factor=shift)
    write_folder(tmp_path / "b", folder, max_shard_bytes=200_000)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "b")
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    _agree(_ours(folder), _theirs(pipeline))
    _agree(_ours(read_folder(tmp_path / "b")), _theirs(pipeline))


def test_the_whole_pipeline_makes_diffusers_picture(parts, tmp_path):
    options = BETAS | {"timestep_spacing": "trailing"}
    theirs = _pipeline(parts, DDIMScheduler(**options, clip_sample=False))
    theirs.save_pretrained(tmp_path)
    ours = safelight.load(tmp_path, device="cpu")
    made = ours.generate(PROMPT, negative=NEGATIVE, steps=STEPS, scale=4.0, seed=SEED)[0].image
    wanted = np.round(_theirs(theirs)[0] * 255)
    assert np.abs(np.asarray(made, dtype=np.float32) - wanted).max() <= 1
