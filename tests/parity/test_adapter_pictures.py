"""Pictures steered by a T2I-Adapter against diffusers': the same seed, the same picture."""

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionAdapterPipeline,
    StableDiffusionPipeline,
    T2IAdapter,
)
from PIL import Image
from transformers import CLIPTextModel

import safelight
from safelight.checkpoints.controlnet import write_control
from safelight.models import kept_features
from safelight.models.t2i_adapter import T2IAdapter as OurAdapter
from safelight.models.t2i_adapter import T2IAdapterConfig
from safelight.pipelines.control_settings import Control
from tiny_model import FACTOR, write_tiny_model

from .conftest import saved, shaken
from .small import BETAS, small_tower, small_unet, small_vae, small_words

SIZE, SEED, STEPS = 32, 11, 6
PROMPT = "a red cube left of a blue ball!"


@pytest.mark.parametrize("weight", [1.0, 0.7])
def test_an_adapter_steers_as_in_diffusers(tmp_path, weight):
    torch.manual_seed(5)
    tokenizer = small_words(tmp_path, [PROMPT])
    unet = small_unet()
    parts = {
        "tokenizer": tokenizer,
        "text_encoder": small_tower(CLIPTextModel, len(tokenizer)),
        "vae": small_vae(),
        "unet": unet,
        "scheduler": EulerDiscreteScheduler(**BETAS),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    adapter = shaken(
        T2IAdapter(
            in_channels=3,
            channels=list(unet.config.block_out_channels),
            num_res_blocks=1,
            downscale_factor=2,
        )
    )
    levels = np.random.default_rng(3).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    hint = Image.fromarray(levels)
    theirs = StableDiffusionAdapterPipeline(**parts, adapter=adapter)
    theirs.set_progress_bar_config(disable=True)
    wanted = theirs(
        PROMPT,
        image=hint,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        adapter_conditioning_scale=weight,
        generator=torch.Generator().manual_seed(SEED),
    ).images[0]
    StableDiffusionPipeline(**parts).save_pretrained(tmp_path / "model")
    network = saved(adapter, tmp_path / "adapter")
    pipeline = safelight.load(tmp_path / "model", device="cpu")
    asked = {"steps": STEPS, "scale": 4.0, "seed": SEED, "width": SIZE, "height": SIZE}
    control = Control("edges", hint, hint=True, network=network, weight=weight)
    ours, alone = (
        np.asarray(pipeline.generate(PROMPT, controls=controls, **asked)[0].image, dtype=int)
        for controls in ([control], [])
    )
    assert np.abs(ours - np.asarray(wanted, dtype=int)).max() <= 1
    assert np.abs(ours - alone).max() > 10


@pytest.mark.parametrize("options", [{}, {"tiled_diffusion": True, "width": 64, "tile_size": 32}])
def test_features_are_computed_once_a_run(tmp_path, monkeypatch, options):
    """And the picture is the same to the bit as with features of every step."""
    model = write_tiny_model(tmp_path / "model")
    pipeline = safelight.load(model, device="cpu")
    channels = pipeline.folder.unet.config.block_out_channels
    torch.manual_seed(0)
    adapter = OurAdapter(
        T2IAdapterConfig(block_out_channels=channels, layers_per_block=1, factor=FACTOR)
    )
    write_control(tmp_path / "adapter", adapter, torch.float32)
    levels = np.random.default_rng(3).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    control = Control("edges", Image.fromarray(levels), hint=True, network=tmp_path / "adapter")
    asked = {"steps": 4, "scale": 4.0, "sampler": "dpm2", "width": SIZE, "height": SIZE} | options
    calls = []
    forward = OurAdapter.forward
    monkeypatch.setattr(OurAdapter, "forward", lambda *a: calls.append(1) or forward(*a))

    def made():
        calls.clear()
        image = pipeline.generate("a red cube", controls=[control], **asked)[0].image
        return np.asarray(image), len(calls)

    kept, few = made()
    monkeypatch.setattr(kept_features.torch, "is_grad_enabled", lambda: True)
    anew, many = made()
    assert np.array_equal(kept, anew)
    assert few == (3 if options else 1)
    assert many >= 4 * few
