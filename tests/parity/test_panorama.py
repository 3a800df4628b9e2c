"""Denoising through windows against diffusers' MultiDiffusion, its panorama pipeline."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPanoramaPipeline, StableDiffusionPipeline
from transformers import CLIPTextModel

import safelight

from .small import BETAS, small_tower, small_unet, small_vae, small_words

PROMPT, NEGATIVE, SEED, STEPS = "a red cube left of a blue ball!", "grey mush", 11, 6
WINDOW, OVERLAP, FACTOR = 16, 8, 2  # latents, as the U-Net was trained; pixels to a latent


@pytest.mark.parametrize(("height", "width"), [(32, 80), (48, 64)])
def test_a_panorama_is_that_of_diffusers(height, width, tmp_path):
    tokenizer = small_words(tmp_path, [PROMPT, NEGATIVE])
    parts = {
        "vae": small_vae(),
        "unet": small_unet(),
        "scheduler": DDIMScheduler(**BETAS, clip_sample=False),
        "tokenizer": tokenizer,
        "text_encoder": small_tower(CLIPTextModel, len(tokenizer)),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    StableDiffusionPipeline(**parts).save_pretrained(tmp_path / "model")
    theirs = StableDiffusionPanoramaPipeline(**parts)
    theirs.set_progress_bar_config(disable=True)
    laid = theirs.get_views  # which takes a factor of 8 for granted, and windows of 64
    theirs.get_views = lambda high, wide, circular_padding: laid(
        high * 8 // FACTOR, wide * 8 // FACTOR, WINDOW, WINDOW - OVERLAP, circular_padding
    )
    wanted = theirs(
        PROMPT,
        height,
        width,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        negative_prompt=NEGATIVE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
    ).images[0]
    ours = safelight.load(tmp_path / "model", device="cpu")
    options = {"steps": STEPS, "scale": 4.0, "width": width, "height": height, "seed": SEED}
    made, plain = (
        ours.generate(PROMPT, negative=NEGATIVE, tiled_diffusion=tiled, **options)[0]
        for tiled in (True, False)
    )
    assert (made.manifest.windows.size, made.manifest.windows.overlap) == (32, 16)
    wanted = np.round(wanted * 255)
    assert np.abs(np.asarray(made.image, dtype=np.float32) - wanted).max() <= 1
    assert np.abs(np.asarray(plain.image, dtype=np.float32) - wanted).max() > 8
