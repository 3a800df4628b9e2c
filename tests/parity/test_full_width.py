"""The networks of Stable Diffusion 2.1 and XL in their own sizes, with random weights, against
diffusers and transformers; both stand on the same tensors, so that the largest takes 10.3 GB.
"""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from safelight.checkpoints.components import filled
from safelight.checkpoints.tables.autoencoder import AUTOENCODER, autoencoder_config_from_diffusers
from safelight.checkpoints.tables.clip import CLIP_TEXT, clip_config_from_transformers
from safelight.checkpoints.tables.unet import UNET, unet_config_from_diffusers
from safelight.conditioners.numbers import with_numbers
from safelight.models.autoencoder import Autoencoder
from safelight.models.clip import ClipText
from safelight.models.unet import UNet
from safelight.types import Conditioning

from .conftest import relative_error
from .published import TEXT_TOWERS, UNETS, VAES

pytestmark = pytest.mark.slow
CLOSE = 1e-4
SIDE, WORDS, POOLED = 16, 77, 1280  # of the latent, of the context, of XL's pooled text


def _random(build):
    """A network of random weights, each drawn once: gains near 1, layers that keep the scale."""
    with torch.device("meta"):
        module = build()
    module.to_empty(device="cpu")
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.normal_(0.0, 0.05)
        else:
            parameter.normal_(0.0, parameter[0].numel() ** -0.5)
    for layer in module.modules():
        if isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
            layer.weight.add_(1.0)
    return module.eval()


def _agree(name, ours, theirs):
    error = relative_error(ours, theirs)
    print(f"{name}: {error:.1e} of {theirs.abs().max():.3g}, its spread {theirs.std():.3g}")
    assert theirs.std() > 0.1 * theirs.abs().mean() > 0
    assert error < CLOSE


@pytest.mark.parametrize("name", ["sd2.1", "sdxl"])
def test_full_width_unet(name):
    values = UNETS[name]
    theirs = _random(lambda: UNet2DConditionModel.from_config(values))
    config = unet_config_from_diffusers(values)
    ours = filled(lambda: UNet(config), theirs.state_dict(), UNET, source=name)
    x, t = torch.randn(1, 4, SIDE, SIDE), torch.tensor([417.0])
    context = torch.randn(1, WORDS, values["cross_attention_dim"])
    cond, added = Conditioning(context=context), None
    if config.added_time_dim:
        pooled, numbers = torch.randn(1, POOLED), torch.tensor([[1024.0, 1024, 0, 16, 768, 1024]])
        added = {"text_embeds": pooled, "time_ids": numbers}
        cond = with_numbers(Conditioning(context=context, vector=pooled), numbers, config)
    wanted = theirs(x, t, context, added_cond_kwargs=added).sample
    _agree(name, ours(x, t, cond), wanted)


@pytest.mark.parametrize("name", ["openclip-h", "clip-l", "openclip-bigg"])
def test_full_width_text_tower(name):
    values = TEXT_TOWERS[name]
    projected = values["architectures"] == ["CLIPTextModelWithProjection"]
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    theirs = kind(CLIPTextConfig(**values)).float()  # which the published file asks for in float16
    for parameter in theirs.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.01)
    config = clip_config_from_transformers(values)
    ours = filled(lambda: ClipText(config), theirs.eval().state_dict(), CLIP_TEXT, source=name)
    ids = torch.randint(0, 49406, (2, WORDS))
    ids[:, 0], ids[0, 9:], ids[1, -1] = 49406, 49407, 49407
    wanted, features = theirs(ids, output_hidden_states=True), ours(ids)
    _agree(name, features.tokens, wanted.last_hidden_state)
    if projected:
        _agree(f"{name}, pooled", features.pooled, wanted.text_embeds)


@pytest.mark.parametrize("name", ["sd1.5", "sdxl"])  # Stable Diffusion 2.1 has that of 1.5
def test_full_width_autoencoder(name):
    theirs = _random(lambda: AutoencoderKL.from_config(VAES[name]))
    config = autoencoder_config_from_diffusers(VAES[name])
    ours = filled(lambda: Autoencoder(config), theirs.state_dict(), AUTOENCODER, source=name)
    pixels, z = torch.randn(1, 3, 8 * SIDE, 8 * SIDE), torch.randn(1, 4, SIDE, SIDE)
    _agree(f"{name}, decoded", ours.decode(z), theirs.decode(z).sample)
    _agree(f"{name}, encoded", ours.encode(pixels).mean, theirs.encode(pixels).latent_dist.mean)
