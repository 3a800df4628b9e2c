"""Image prompts by an adapter that a model's folder brings."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from safelight.checkpoints.folder import write_folder
from safelight.checkpoints.image_encoder import read_image_encoder
from safelight.checkpoints.ip_adapter import write_image_adapter
from safelight.errors import SafelightError
from safelight.models.image_adapter import ImageAdapter, ImageAdapterConfig
from safelight.pipelines.condition_settings import ImagePrompt
from tiny_model import seeing_folder, tiny_folder, write_tiny_model

ENCODER = "efficientnet-lite0"


@pytest.fixture
def folder(tmp_path):
    """A model's folder with an adapter of its own, which is not near its first values."""
    path = write_tiny_model(tmp_path / "model")
    width = read_image_encoder(ENCODER).width
    torch.manual_seed(1)
    adapter = ImageAdapter.for_unet(tiny_folder().unet, ImageAdapterConfig(width, 1, ()))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    (path / "ip_adapter").mkdir()
    write_image_adapter(path / "ip_adapter" / "ip_adapter.safetensors", adapter)
    config = json.dumps({"image_encoder": ENCODER})
    (path / "ip_adapter" / "config.json").write_text(config)
    return path


def _made(pipeline, *shown):
    return pipeline.generate("a red cube", steps=3, seed=4, image_prompts=shown)[0]


def _noise(seed):
    levels = np.random.default_rng(seed).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def test_a_model_brings_its_adapter_and_names_its_encoder(folder):
    pipeline = safelight.load(folder, device="cpu")
    plain, one, other = (
        _made(pipeline, *(ImagePrompt(picture) for picture in shown))
        for shown in ((), (_noise(1),), (Image.new("RGB", (64, 64), "red"),))
    )
    assert plain.manifest.image_prompts is None
    used = one.manifest.image_prompts
    assert used.weights == (1.0,)
    assert (used.adapter.file, used.adapter.encoder) == ("", "")  # the model's own
    assert len(used.adapter.sha256) == len(used.adapter.encoder_sha256) == 64
    levels = [np.asarray(made.image, dtype=int) for made in (plain, one, other)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(levels[first] - levels[second]).max() > 2


@pytest.mark.parametrize("place", ["ip_adapter/image_encoder", "image_encoder"])
def test_the_encoder_of_its_own_is_a_folder_inside_or_beside(folder, place, tmp_path):
    own = seeing_folder()
    config = ImageAdapterConfig(own.vision.tower.config.projection_dim, 1, ())
    adapter = ImageAdapter.for_unet(tiny_folder().unet, config)
    write_image_adapter(folder / "ip_adapter" / "ip_adapter.safetensors", adapter)
    (folder / "ip_adapter" / "config.json").unlink()
    with pytest.raises(SafelightError, match="no image encoder beside"):
        _made(safelight.load(folder, device="cpu"), ImagePrompt(_noise(1)))
    write_folder(tmp_path / "seeing", own)
    (tmp_path / "seeing" / "image_encoder").rename(folder / place)
    shown, plain = (
        np.asarray(_made(safelight.load(folder, device="cpu"), *some).image, dtype=int)
        for some in ([ImagePrompt(_noise(1))], [])
    )
    assert np.abs(shown - plain).max() > 2
