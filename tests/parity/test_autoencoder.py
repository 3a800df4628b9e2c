"""Our autoencoders against diffusers' `AutoencoderKL` and `VQModel`, read, run and written."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from safetensors.torch import load_file, save_file

from safelight.checkpoints.components import read_autoencoder, write_autoencoder
from safelight.checkpoints.tables.autoencoder import (
    autoencoder_config_from_diffusers,
    autoencoder_config_to_diffusers,
    vq_config_from_diffusers,
    vq_config_to_diffusers,
)
from safelight.errors import SafelightError

from .conftest import relative_error, saved, shaken

DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
DOWN_ATTEND, UP_ATTEND = "AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"


def _levels(*channels, attend=False):
    plain = len(channels) - 1
    return {
        "block_out_channels": channels,
        "down_block_types": (DOWN,) * plain + (DOWN_ATTEND if attend else DOWN,),
        "up_block_types": (UP_ATTEND if attend else UP,) + (UP,) * plain,
    }


KL = {
    "sd": _levels(32, 32, 64, 64) | {"layers_per_block": 2, "sample_size": 512},
    "sd3": _levels(32, 64)
    | {
        "latent_channels": 16,
        "shift_factor": 0.0609,
        "scaling_factor": 1.5305,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "f4-with-attention": _levels(32, 32, 64, attend=True) | {"scaling_factor": 0.13025},
    "no-attention": _levels(16, 32) | {"mid_block_add_attention": False, "norm_num_groups": 8},
    "grey": _levels(32, 64) | {"in_channels": 1, "out_channels": 1, "latent_channels": 1},
}
VQ = {
    "vq-f4": _levels(32, 32, 64) | {"layers_per_block": 2, "num_vq_embeddings": 64},
    "vq-attention": _levels(32, 64, attend=True)
    | {"latent_channels": 4, "vq_embed_dim": 6, "num_vq_embeddings": 32},
}


@pytest.mark.parametrize("name", KL)
def test_kl_agrees_with_diffusers_and_is_read_back_by_it(name, tmp_path):
    theirs = shaken(AutoencoderKL(**KL[name]))
    ours = read_autoencoder(saved(theirs, tmp_path / "theirs"))
    pixels = torch.rand(2, KL[name].get("in_channels", 3), 32, 48) * 2 - 1
    wanted, got = theirs.encode(pixels).latent_dist, ours.encode(pixels)
    assert relative_error(got.mean, wanted.mean) < 2e-5
    assert relative_error(got.logvar, wanted.logvar) < 2e-5
    torch.testing.assert_close(got.kl(), wanted.kl(), rtol=1e-4, atol=1e-3)
    z = torch.randn_like(wanted.mean)
    assert relative_error(ours.decode(z), theirs.decode(z).sample) < 2e-5

    write_autoencoder(tmp_path / "ours", ours)
    again = AutoencoderKL.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(again.decode(z).sample, theirs.decode(z).sample, rtol=0, atol=0)
    assert again.config.scaling_factor == theirs.config.scaling_factor
    assert again.config.shift_factor == theirs.config.shift_factor


@pytest.mark.parametrize("name", VQ)
def test_vq_agrees_with_diffusers_and_is_read_back_by_it(name, tmp_path):
    theirs = shaken(VQModel(**VQ[name]))
    ours = read_autoencoder(saved(theirs, tmp_path / "theirs"))
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    wanted, got = theirs.encode(pixels).latents, ours.encode(pixels)
    assert relative_error(got, wanted) < 2e-5
    quantized, _, (_, _, indices) = theirs.quantize(wanted)
    chosen = ours.quantize(wanted)
    torch.testing.assert_close(chosen.indices.flatten(), indices)
    torch.testing.assert_close(chosen.z, quantized)
    assert relative_error(ours.decode(wanted), theirs.decode(wanted).sample) < 2e-5
    raw = theirs.decode(wanted, force_not_quantize=True).sample
    assert relative_error(ours.decode(wanted, quantize=False), raw) < 2e-5

    write_autoencoder(tmp_path / "ours", ours)
    again = VQModel.from_pretrained(tmp_path / "ours")
    same = again.decode(wanted).sample
    torch.testing.assert_close(same, theirs.decode(wanted).sample, rtol=0, atol=0)


def test_slicing_changes_nothing(tmp_path):
    ours = read_autoencoder(saved(shaken(AutoencoderKL(**KL["sd3"])), tmp_path))
    pixels = torch.rand(3, 3, 16, 16) * 2 - 1
    whole = ours.decode(ours.encode(pixels).mean)
    ours.slicing = True
    torch.testing.assert_close(ours.decode(ours.encode(pixels).mean), whole, rtol=1e-5, atol=1e-5)


def test_the_attention_names_of_old_files_are_read(tmp_path):
    theirs = shaken(AutoencoderKL(**KL["sd"]))
    saved(theirs, tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, tensor in load_file(weights).items():
        for new, former in (
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ):
            name = name.replace(f".{new}.", f".{former}.")
        old[name] = tensor
    assert any(".proj_attn." in name for name in old)
    save_file(old, weights, metadata={"format": "pt"})
    z = torch.randn(1, 4, 4, 4)
    ours = read_autoencoder(tmp_path)
    assert relative_error(ours.decode(z), theirs.decode(z).sample) < 2e-5


@pytest.mark.parametrize("name", KL)
def test_a_kl_configuration_survives_the_way_there_and_back(name):
    theirs = json.loads(AutoencoderKL(**KL[name]).to_json_string())
    ours = autoencoder_config_from_diffusers(theirs)
    written = autoencoder_config_to_diffusers(ours)
    assert autoencoder_config_from_diffusers(written) == ours
    assert written.keys() >= {key for key in theirs if not key.startswith("_")}


@pytest.mark.parametrize("name", VQ)
def test_a_vq_configuration_survives_the_way_there_and_back(name):
    theirs = json.loads(VQModel(**VQ[name]).to_json_string())
    ours = vq_config_from_diffusers(theirs)
    assert vq_config_from_diffusers(vq_config_to_diffusers(ours)) == ours


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"latents_mean": [0.0] * 4}, "latents_mean"),
        ({"act_fn": "gelu"}, "act_fn"),
        ({"up_block_types": [UP]}, "up blocks"),
        ({"scaling_factor": "large"}, "scaling_factor"),
    ],
)
def test_a_part_that_is_not_built_is_named_in_one_line(change, named):
    values = json.loads(AutoencoderKL(**KL["sd"]).to_json_string()) | change
    with pytest.raises(SafelightError, match=named):
        autoencoder_config_from_diffusers(values)
