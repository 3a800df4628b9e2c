"""Whole clips against diffusers' pipelines, from the same folders and seeds."""

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableVideoDiffusionPipeline,
)
from diffusers.pipelines.stable_video_diffusion import (
    pipeline_stable_video_diffusion as their_module,
)
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from safelight.pipelines.load_video import load_video

from .conftest import shaken
from .small import BETAS, small_tower, small_vae, small_words
from .small_video import PROJECTION, motion_adapter, moving_unet, svd_unet, temporal_vae

SIZE = (64, 32)


@pytest.fixture
def picture() -> Image.Image:
    levels = np.random.default_rng(3).integers(0, 256, (5, 10, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((96, 48), Image.Resampling.BICUBIC)


@pytest.fixture
def svd(tmp_path) -> StableVideoDiffusionPipeline:
    tower = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=PROJECTION,
    )
    pipeline = StableVideoDiffusionPipeline(
        vae=temporal_vae(),
        image_encoder=shaken(CLIPVisionModelWithProjection(tower)),
        unet=svd_unet(),
        scheduler=EulerDiscreteScheduler(
            **BETAS,
            prediction_type="v_prediction",
            timestep_type="continuous",
            timestep_spacing="leading",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
        ),
        feature_extractor=CLIPImageProcessor(crop_size=32, size={"shortest_edge": 32}),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path / "svd")
    return pipeline


@pytest.fixture
def small_square(monkeypatch):
    """Lets diffusers resize for the small tower, where it has 224 pixels for all."""
    plain = their_module._resize_with_antialiasing
    monkeypatch.setattr(
        their_module, "_resize_with_antialiasing", lambda image, size: plain(image, (32, 32))
    )


@pytest.mark.usefixtures("small_square")
def test_a_clip_of_a_picture_is_that_of_diffusers(svd, picture, tmp_path):
    options = {"num_inference_steps": 4, "decode_chunk_size": 2, "output_type": "pt"}
    wanted = svd(
        picture,
        height=SIZE[1],
        width=SIZE[0],
        fps=9,
        motion_bucket_id=80,
        noise_aug_strength=0.05,
        min_guidance_scale=1.2,
        max_guidance_scale=2.5,
        generator=torch.Generator().manual_seed(7),
        **options,
    ).frames[0]
    clip = load_video(tmp_path / "svd").animate(
        picture,
        fps=9.0,
        motion=80.0,
        augmentation=0.05,
        first_scale=1.2,
        scale=2.5,
        steps=4,
        seed=7,
        decode=2,
        width=SIZE[0],
        height=SIZE[1],
    )
    assert len(clip.frames) == 3
    assert _difference(clip.frames, wanted) < 1


@pytest.mark.usefixtures("small_square")
def test_without_guidance_it_is_too(svd, picture, tmp_path):
    wanted = svd(
        picture,
        height=SIZE[1],
        width=SIZE[0],
        num_frames=5,
        max_guidance_scale=1.0,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(1),
        output_type="pt",
    ).frames[0]
    clip = load_video(tmp_path / "svd").animate(
        picture, scale=1.0, steps=3, seed=1, frames=5, window=5, width=SIZE[0], height=SIZE[1]
    )
    assert _difference(clip.frames, wanted) < 1


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_clip_of_a_prompt_is_that_of_diffusers(low_memory, tmp_path):
    words = small_words(tmp_path, ["a red cube", "a blue ball"])
    adapter = motion_adapter()
    unet, vae, tower = moving_unet(), small_vae(), small_tower(CLIPTextModel, len(words))
    adapter.save_pretrained(tmp_path / "motion")
    scheduler = DDIMScheduler(
        **(BETAS | {"beta_schedule": "linear"}), clip_sample=False, timestep_spacing="linspace"
    )
    StableDiffusionPipeline(
        vae, tower, words, unet, scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(tmp_path / "sd")
    theirs = AnimateDiffPipeline(vae, tower, words, unet, adapter, scheduler)
    theirs.set_progress_bar_config(disable=True)
    wanted = theirs(
        "a red cube",
        negative_prompt="a ball",
        num_frames=5,
        height=32,
        width=32,
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
    ).frames[0]
    clip = load_video(tmp_path / "sd", motion_module=tmp_path / "motion").animate(
        prompt="a red cube",
        negative="a ball",
        frames=5,
        window=5,
        steps=4,
        scale=3.0,
        seed=3,
        width=32,
        height=32,
        low_memory=low_memory,
        prompt_syntax="plain",
    )
    assert _difference(clip.frames, wanted) < 1


def _difference(frames, wanted) -> float:
    """The greatest difference of two clips in levels of 255."""
    theirs = (wanted * 255).permute(0, 2, 3, 1).double()
    ours = torch.stack([torch.from_numpy(np.array(frame)).double() for frame in frames])
    assert theirs.std() > 5  # which shows something
    return (ours - theirs).abs().max().item()
