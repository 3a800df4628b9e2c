"""Previews by a linear map of latents to colours, beside the pictures that they are decoded to."""

import numpy as np
import pytest
import torch
from PIL import Image

from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.tiny import TinyAutoencoder, TinyConfig
from safelight.pipelines.load import load
from safelight.pipelines.previews import ColourPreviewer, Previewer, quick_previewer
from safelight.pipelines.request import Request


@pytest.fixture(scope="module")
def finished():
    """The latents of four pictures of the default model, and its autoencoder."""
    pipeline, kept = load("default", device="cpu"), []
    prompts = ["a red cube", "a 3d emoji of a green apple", "two blue balls", "a yellow cone"]
    settings = pipeline.settle(Request("", steps=6))
    pipeline.sample(prompts, [1, 2, 3, 4], settings, on_step=lambda *step: kept.append(step[3]))
    return kept[-1], pipeline.folder.autoencoder


def test_colours_are_those_of_the_pictures(finished):
    latents, autoencoder = finished
    previews, pictures = ColourPreviewer(autoencoder)(latents), Previewer(autoencoder)(latents)
    places = (latents.shape[-1], latents.shape[-2])
    for preview, picture in zip(previews, pictures, strict=True):
        assert preview.size == picture.size
        small = [
            np.asarray(one.resize(places, Image.Resampling.BOX), float)
            for one in (preview, picture)
        ]
        assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.75
        assert np.abs(small[0] - small[1]).mean() < 30


def test_a_large_autoencoder_is_previewed_by_colours():
    with torch.device("meta"):
        large = Autoencoder(AutoencoderConfig())
        halves = [TinyAutoencoder(TinyConfig(encoder_blocks=()))]
        small = Autoencoder(
            AutoencoderConfig(block_out_channels=(32, 32, 64, 64), norm_num_groups=8)
        )
    assert isinstance(quick_previewer(large), ColourPreviewer)
    for one in (small, *halves):
        assert isinstance(quick_previewer(one), Previewer)


def test_a_callback_shows_the_first_of_a_batch(finished):
    latents, autoencoder = finished
    shown = []
    previewer = ColourPreviewer(autoencoder)
    previewer.showing(shown.append)(0, 1.0, latents, latents)
    assert [picture.tobytes() for picture in shown] == [previewer(latents)[0].tobytes()]
