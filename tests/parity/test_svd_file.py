"""Stable Video Diffusion in one file, in the layout of Stability's generative-models."""

import re

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from safelight.checkpoints.components import Reading, read_autoencoder, read_unet
from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.model import read_model
from safelight.checkpoints.vision import read_image_tower
from safelight.errors import SafelightError
from safelight.models.temporal_autoencoder import TemporalAutoencoder
from safelight.models.video import VideoUNet

from .conftest import saved, shaken
from .small_video import NUMBER, PROJECTION, temporal_vae

_RES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def published_unet(state: dict[str, Tensor], layers: int, levels: int) -> dict[str, Tensor]:
    """diffusers' names to those of generative-models, as the published file has them."""
    renamed: dict[str, Tensor] = {}
    flat = {
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
    }
    for key, tensor in state.items():
        name, _, last = key.rpartition(".")
        if name in flat:
            renamed[f"{flat[name]}.{last}"] = tensor
            continue
        parts = key.split(".")
        if parts[0] == "mid_block":
            place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
            block, rest = f"middle_block.{place}", parts[3:]
        else:
            level, kind, layer = int(parts[1]), parts[2], int(parts[3])
            each, side = (
                (layers + 1, "input") if parts[0] == "down_blocks" else (layers + 1, "output")
            )
            number = level * each + layer + (side == "input")
            attends = any(k.startswith(f"{parts[0]}.{level}.attentions") for k in state)
            if kind == "downsamplers":
                number = (level + 1) * each
                block, rest = f"input_blocks.{number}.0.op", parts[5:]
            elif kind == "upsamplers":
                number = (level + 1) * each - 1
                block, rest = f"output_blocks.{number}.{1 + attends}.conv", parts[5:]
            else:
                block = f"{side}_blocks.{number}.{int(kind == 'attentions')}"
                rest = parts[4:]
        tail = ".".join(rest)
        if rest[0] in ("spatial_res_block", "temporal_res_block"):
            stack = "" if rest[0].startswith("spatial") else "time_stack."
            tail = f"{stack}{_RES[rest[1]]}.{rest[2]}"
        tail = tail.replace("temporal_transformer_blocks.", "time_stack.")
        tail = tail.replace("time_pos_embed.linear_1", "time_pos_embed.0")
        tail = tail.replace("time_pos_embed.linear_2", "time_pos_embed.2")
        renamed[f"{block}.{tail}"] = tensor
    assert len(renamed) == len(state)
    return renamed


def published_vae(state: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The same for the autoencoder."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = key
        name = re.sub(r"encoder\.down_blocks\.(\d)\.resnets", r"encoder.down.\1.block", name)
        name = re.sub(
            r"decoder\.up_blocks\.(\d)\.resnets",
            lambda m: f"decoder.up.{levels - 1 - int(m[1])}.block",
            name,
        )
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(
            r"up_blocks\.(\d)\.upsamplers\.0",
            lambda m: f"up.{levels - 1 - int(m[1])}.upsample",
            name,
        )
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for ours, theirs in (
            ("group_norm", "norm"),
            ("to_q", "q"),
            ("to_k", "k"),
            ("to_v", "v"),
            ("to_out.0", "proj_out"),
        ):
            name = name.replace(f"attn_1.{ours}", f"attn_1.{theirs}")
        if "attn_1" in name and name.endswith("weight") and "norm" not in name:
            tensor = tensor[:, :, None, None]
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = name.replace("decoder.time_conv_out", "decoder.conv_out.time_mix_conv")
        name = name.replace("spatial_res_block.", "").replace("time_mixer.", "")
        found = re.fullmatch(r"(.*)\.temporal_res_block\.(\w+)\.(\w+)", name)
        if found:
            name = f"{found[1]}.time_stack.{_RES[found[2]]}.{found[3]}"
        renamed[name] = tensor
    assert len(renamed) == len(state)
    return renamed


def published_tower(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An image tower in OpenCLIP's names."""
    flat = {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "pre_layrnorm": "ln_pre",
        "post_layernorm": "ln_post",
        "layer_norm": "ln_",
        "encoder.layers": "transformer.resblocks",
        "self_attn": "attn",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = key.removeprefix("vision_model.")
        if name == "visual_projection.weight":
            renamed["proj"] = tensor.T.contiguous()
            continue
        if "position_ids" in name:
            continue
        for ours, theirs in flat.items():
            name = name.replace(ours, theirs)
        joined = re.fullmatch(r"(.*attn)\.([qkv])_proj\.(weight|bias)", name)
        if joined is None:
            renamed[name] = tensor
        elif joined[2] == "q":
            rows = [state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            renamed[f"{joined[1]}.in_proj_{joined[3]}"] = torch.cat(rows)
    return renamed


@pytest.fixture
def networks(tmp_path):
    unet = shaken(
        UNetSpatioTemporalConditionModel(
            sample_size=96,
            block_out_channels=(64, 128),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            cross_attention_dim=PROJECTION,
            addition_time_embed_dim=NUMBER,
            projection_class_embeddings_input_dim=3 * NUMBER,
            num_attention_heads=(1, 2),
            num_frames=14,
        )
    )
    tower = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=16,
        image_size=32,
        patch_size=8,
        projection_dim=PROJECTION,
    )
    tower = shaken(CLIPVisionModelWithProjection(tower))
    vae = temporal_vae()
    state = {
        "model.diffusion_model." + key: tensor
        for key, tensor in published_unet(unet.state_dict(), 1, 2).items()
    }
    state |= {
        "first_stage_model." + key: tensor
        for key, tensor in published_vae(vae.state_dict(), 2).items()
    }
    state |= {
        "conditioner.embedders.0.open_clip.model.visual." + key: tensor
        for key, tensor in published_tower(tower.state_dict()).items()
    }
    state["conditioner.embedders.0.open_clip.model.logit_scale"] = torch.ones(1)
    state["conditioner.embedders.3.encoder.encoder.conv_in.weight"] = torch.ones(1)
    return unet, vae, tower, {key: tensor.clone() for key, tensor in state.items()}


def test_one_file_is_read_as_the_folder_is(networks, tmp_path):
    unet, vae, tower, state = networks
    save_file(state, tmp_path / "svd.safetensors")
    model = read_model(tmp_path / "svd.safetensors")
    theirs = read_unet(saved(unet, tmp_path / "unet"))
    assert isinstance(model.unet, VideoUNet)
    assert isinstance(theirs, VideoUNet)
    assert (model.unet.config, model.unet.temporal) == (theirs.config, theirs.temporal)
    decoder = read_autoencoder(saved(vae, tmp_path / "vae"))
    assert isinstance(model.autoencoder, TemporalAutoencoder)
    assert model.vision is not None
    image = read_image_tower(saved(tower, tmp_path / "tower"), Reading())
    for ours, other in (
        (model.unet, theirs),
        (model.autoencoder, decoder),
        (model.vision.tower, image),
    ):
        assert ours.state_dict().keys() == other.state_dict().keys()
        for name, tensor in other.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor), name
    assert model.scheduler.levels == "edm"
    assert inspect(tmp_path / "svd.safetensors").kind.startswith("a whole model of its own sizes")


def test_a_file_that_is_not_whole_is_one_line(networks, tmp_path):
    state = networks[3]
    del state["model.diffusion_model.input_blocks.1.0.time_stack.in_layers.2.weight"]
    save_file(state, tmp_path / "svd.safetensors")
    with pytest.raises(
        SafelightError, match=r"missing: down_blocks.0.resnets.0.temporal_res_block"
    ):
        read_model(tmp_path / "svd.safetensors")
    assert describe_state(networks[1].state_dict()) == "an autoencoder that decodes clips"
