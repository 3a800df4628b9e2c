"""A seed means what it means in diffusers, for samplers that draw noise on the way too."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)

import safelight

SCHEDULERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
}


@pytest.fixture(scope="module")
def peer(model_folder) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(model_folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_the_same_seed_makes_the_same_picture_as_diffusers(peer, model_folder, sampler):
    peer.scheduler = SCHEDULERS[sampler].from_config(peer.scheduler.config)
    theirs = peer(
        "a red cube",
        negative_prompt="a blue ball",
        num_inference_steps=6,
        guidance_scale=4.0,
        height=40,
        width=32,
        generator=torch.Generator().manual_seed(1234),
    ).images[0]
    [ours] = safelight.load(model_folder, device="cpu").generate(
        "a red cube",
        negative="a blue ball",
        steps=6,
        scale=4.0,
        sampler=sampler,
        seed=1234,
        width=32,
        height=40,
    )
    difference = np.asarray(ours.image, int) - np.asarray(theirs, int)
    assert np.abs(difference).max() <= 1
    assert np.asarray(ours.image).std() > 1
