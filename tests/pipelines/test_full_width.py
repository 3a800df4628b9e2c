"""Stable Diffusion 1.5 in its own size, a billion random weights: written, read, and drawn with."""

import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import safelight
from safelight.checkpoints.folder import Folder, write_folder
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.unet import UNet, UNetConfig

PROMPT, SIDE = "a photograph of a red apple", 64


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder, in bfloat16: 2.1 GB, which do not stay."""
    path = tmp_path_factory.mktemp("models") / "full"
    torch.manual_seed(0)
    folder = Folder(
        UNet(UNetConfig()),
        Autoencoder(AutoencoderConfig()),
        (ClipText(ClipTextConfig()),),
        (ClipTokenizer.bundled(),),
        SchedulerConfig(),
    )
    write_folder(path, folder, dtype=torch.bfloat16)
    del folder
    yield path
    shutil.rmtree(path)


@pytest.mark.slow
def test_full_width_diffusers_opens_the_folder_and_makes_the_same_picture(model):
    pipeline = safelight.load(model, device="cpu")
    settings = {"steps": 2, "scale": 3.0, "seed": 3, "width": SIDE, "height": SIDE}
    [ours] = pipeline.generate(PROMPT, **settings)
    networks = (pipeline.folder.unet, pipeline.folder.autoencoder, *pipeline.folder.text_towers)
    assert sum(p.numel() for network in networks for p in network.parameters()) == 1_066_235_307
    del pipeline, networks
    peer = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
    peer.set_progress_bar_config(disable=True)
    theirs = peer(
        PROMPT,
        num_inference_steps=2,
        guidance_scale=3.0,
        width=SIDE,
        height=SIDE,
        generator=torch.Generator().manual_seed(3),
    )
    pixels = np.asarray(ours.image, int)
    assert pixels.std() > 1
    assert np.abs(pixels - np.asarray(theirs.images[0], int)).max() <= 1
