"""Published configurations, read and built at full size on the meta device, weight by weight."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from safelight.checkpoints.rules import from_ours
from safelight.checkpoints.scheduler_files import scheduler_from_diffusers
from safelight.checkpoints.tables.autoencoder import AUTOENCODER, autoencoder_config_from_diffusers
from safelight.checkpoints.tables.clip import CLIP_TEXT, clip_config_from_transformers
from safelight.checkpoints.tables.unet import UNET, unet_config_from_diffusers
from safelight.models.autoencoder import Autoencoder
from safelight.models.clip import ClipText
from safelight.models.unet import UNet

from .published import SCHEDULERS, TEXT_TOWERS, UNETS, VAES


def _shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("name", UNETS)
def test_a_published_unet_has_diffusers_weights(name):
    with torch.device("meta"):
        theirs = UNet2DConditionModel.from_config(UNETS[name])
        ours = UNet(unet_config_from_diffusers(UNETS[name]))
    assert _shapes(from_ours(UNET, ours.state_dict())) == _shapes(theirs.state_dict())
    assert ours.config.upcast_attention == (name == "sd2.1")


@pytest.mark.parametrize("name", VAES)
def test_a_published_autoencoder_has_diffusers_weights(name):
    with torch.device("meta"):
        theirs = AutoencoderKL.from_config(VAES[name])
        ours = Autoencoder(autoencoder_config_from_diffusers(VAES[name]))
    assert _shapes(from_ours(AUTOENCODER, ours.state_dict())) == _shapes(theirs.state_dict())
    assert ours.config.scaling_factor == theirs.config.scaling_factor


@pytest.mark.parametrize("name", TEXT_TOWERS)
def test_a_published_text_tower_has_transformers_weights(name):
    values = TEXT_TOWERS[name]
    projected = values["architectures"] == ["CLIPTextModelWithProjection"]
    cls = CLIPTextModelWithProjection if projected else CLIPTextModel
    with torch.device("meta"):
        theirs = cls(CLIPTextConfig(**values))
        ours = ClipText(clip_config_from_transformers(values))
    prefix = "text_model."
    wanted = {
        key.removeprefix(prefix): shape for key, shape in _shapes(theirs.state_dict()).items()
    }
    found = _shapes(from_ours(CLIP_TEXT, ours.state_dict()))
    assert {key.removeprefix(prefix): shape for key, shape in found.items()} == wanted
    assert ours.config.eos_token_id == 49407


@pytest.mark.parametrize("name", TEXT_TOWERS)
def test_a_null_in_a_text_tower_is_its_default(name):
    values = TEXT_TOWERS[name]
    with_null = values | {"layer_norm_eps": None}
    assert clip_config_from_transformers(with_null) == clip_config_from_transformers(values)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_published_scheduler_lays_out_its_levels(name):
    config = scheduler_from_diffusers(SCHEDULERS[name])
    sigmas = config.with_sampler(config.sampler).sigmas(20)
    assert len(sigmas) == 21
    assert (sigmas.diff() < 0).all()
