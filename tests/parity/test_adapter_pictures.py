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
from safelight.pipelines.control_settings import Control

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
