"""Guidance against diffusers' pipelines: the same seed, the same picture."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPAGPipeline, StableDiffusionPipeline
from transformers import CLIPTextModel

import safelight
from safelight.pipelines.guidance_settings import Guidance
from safelight.pipelines.request import Request

from .small import BETAS, small_tower, small_unet, small_vae, small_words

SIZE, SEED, STEPS = 32, 11, 6
PROMPT, NEGATIVE = "a red cube left of a blue ball!", "grey mush"
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    torch.manual_seed(5)
    tokenizer = small_words(tmp_path_factory.mktemp("tokenizer"), [PROMPT, NEGATIVE])
    return {
        "tokenizer": tokenizer,
        "text_encoder": small_tower(CLIPTextModel, len(tokenizer)),
        "unet": small_unet(),
        "vae": small_vae(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _compare(kind, parts, folder, options, scale, guidance, **theirs):
    """Both pictures in [0, 1], before they are rounded to levels."""
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, **options)
    pipeline = kind(**parts, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    wanted = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(SEED),
        output_type="np",
        **theirs,
    ).images
    ours = safelight.load(folder, device="cpu")
    request = Request(PROMPT, NEGATIVE, STEPS, scale, "ddim", SEED, SIZE, SIZE, guidance=guidance)
    settings = ours.settle(request)
    made = ours.sample([PROMPT], [SEED], settings, negative=NEGATIVE)
    assert wanted.std() > 0.05  # a picture, not a plain colour
    return (made / 2 + 0.5).permute(0, 2, 3, 1).numpy(), wanted


@pytest.mark.parametrize("options", [{}, {"prediction_type": "v_prediction", **ZERO_SNR}])
@pytest.mark.parametrize("factor", [0.7, 1.0])
def test_rescaled_guidance_makes_diffusers_picture(parts, tmp_path, options, factor):
    ours, theirs = _compare(
        StableDiffusionPipeline,
        parts,
        tmp_path,
        options,
        7.5,
        Guidance(rescale=factor),
        guidance_rescale=factor,
    )
    assert np.abs(ours - theirs).max() <= 1e-4


@pytest.mark.parametrize(
    ("layers", "scale", "rescale"),
    [("mid", 1.0, 0.0), ("mid", 5.0, 0.0), ("mid", 5.0, 0.7), ("up_blocks.1", 5.0, 0.0)],
)
def test_perturbed_attention_guidance_makes_diffusers_picture(
    parts, tmp_path, layers, scale, rescale
):
    unperturbed = dict(parts["unet"].attn_processors)
    try:
        ours, theirs = _compare(
            StableDiffusionPAGPipeline,
            {**parts, "pag_applied_layers": layers},
            tmp_path,
            {"prediction_type": "v_prediction"},
            scale,
            Guidance(pag_scale=3.0, pag_layers=(layers,), rescale=rescale),
            pag_scale=3.0,
            guidance_rescale=rescale,
        )
    finally:
        parts["unet"].set_attn_processor(unperturbed)
    assert np.abs(ours - theirs).max() <= 1e-4
