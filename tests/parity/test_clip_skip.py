"""Layers of the text towers that are left out, against diffusers' `clip_skip`."""

from dataclasses import replace

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import safelight
from safelight.pipelines.request import Request

from .conftest import relative_error
from .small import BETAS, WIDTH, small_tower, small_unet, small_vae, small_words, small_xl_unet

PROMPT = "a red ball left of a blue ball"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    torch.manual_seed(9)
    words = tmp_path_factory.mktemp("tokenizer")
    size = len(small_words(words, [PROMPT], vocab_size=560))
    parts = {
        "vae": small_vae(),
        "scheduler": EulerDiscreteScheduler(**BETAS),
        "tokenizer": CLIPTokenizer.from_pretrained(words),
        "text_encoder": small_tower(CLIPTextModel, size, WIDTH),
    }
    return {
        "sd": StableDiffusionPipeline(
            **parts,
            unet=small_unet(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ),
        "xl": StableDiffusionXLPipeline(
            **parts,
            unet=small_xl_unet(context=WIDTH + 48),
            tokenizer_2=parts["tokenizer"],
            text_encoder_2=small_tower(CLIPTextModelWithProjection, size, 48),
        ),
    }


def _saved(pipeline, folder):
    """The pipeline's folder; diffusers then finds the norm where transformers had it before 5."""
    pipeline.save_pretrained(folder)
    object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    return folder


@pytest.mark.parametrize("name", ["sd", "xl"])
def test_one_more_than_diffusers(models, name, tmp_path):
    theirs = models[name]
    ours = safelight.load(_saved(theirs, tmp_path), device="cpu")
    towers = [tower.config for tower in ours.folder.text_towers]
    last = min(config.num_hidden_layers - config.skip for config in towers)
    assert last > 1
    for clip_skip in range(1, last + 1):
        text = replace(ours._text, skip=clip_skip - 1)
        with torch.no_grad():
            wanted = theirs.encode_prompt(
                PROMPT,
                device="cpu",
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
                clip_skip=clip_skip - 1 or None,
            )
            made = text([PROMPT])
        assert relative_error(made.context, wanted[0]) < 1e-4
        if name == "xl":
            assert relative_error(made.vector, wanted[2]) < 1e-4


def test_a_picture_is_diffusers(models, tmp_path):
    # By its embeddings, because diffusers' own negative prompt leaves no layer out.
    theirs = models["sd"]
    theirs.set_progress_bar_config(disable=True)
    ours = safelight.load(_saved(theirs, tmp_path), device="cpu")
    cond, uncond = (
        theirs.encode_prompt(prompt, "cpu", 1, False, clip_skip=1)[0] for prompt in (PROMPT, "")
    )
    wanted = theirs(
        prompt_embeds=cond,
        negative_prompt_embeds=uncond,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
        height=16,
        width=16,
        num_inference_steps=3,
        guidance_scale=4.0,
    ).images
    request = Request(PROMPT, steps=3, scale=4.0, width=16, height=16)
    usual, made = (
        ours.sample([PROMPT], [3], ours.settle(replace(request, clip_skip=skip))) / 2 + 0.5
        for skip in (1, 2)
    )
    assert (made - wanted).abs().max() < 1 / 255
    assert (usual - wanted).abs().max() > 1 / 255
