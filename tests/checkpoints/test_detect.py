"""What a file is, in plain words, by its keys."""

import json

import pytest
import torch

from safelight.checkpoints.detect import describe_folder, describe_state
from safelight.checkpoints.rules import from_ours
from safelight.checkpoints.tables.autoencoder import AUTOENCODER, VQ
from safelight.checkpoints.tables.clip import CLIP_TEXT
from safelight.checkpoints.tables.unet import UNET
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.clip import ClipText, ClipTextConfig
from safelight.models.unet import UNet, UNetConfig
from safelight.models.vq import VQAutoencoder, VQConfig

XL = {
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": (2, 2, 2),
    "attention": (False, True, True),
    "transformer_layers": (1, 2, 10),
    "attention_heads": (5, 10, 20),
    "only_cross_attention": (False, False, False),
    "cross_attention_dim": 2048,
    "added_dim": 2816,
}
NETWORKS = {
    "a Stable Diffusion 1.x U-Net": (UNET, lambda: UNet(UNetConfig())),
    "a Stable Diffusion 1.x U-Net for inpainting": (UNET, lambda: UNet(UNetConfig(in_channels=9))),
    "a Stable Diffusion 2.x U-Net for depth": (
        UNET,
        lambda: UNet(UNetConfig(in_channels=5, cross_attention_dim=1024)),
    ),
    "an SDXL U-Net": (UNET, lambda: UNet(UNetConfig(**XL))),
    "a U-Net of 4 input channels and context width 32": (
        UNET,
        lambda: UNet(UNetConfig(cross_attention_dim=32)),
    ),
    "a KL autoencoder of 4 latent channels": (
        AUTOENCODER,
        lambda: Autoencoder(AutoencoderConfig()),
    ),
    "a VQ autoencoder": (VQ, lambda: VQAutoencoder(VQConfig())),
    "a CLIP text tower of width 768 (CLIP-L)": (CLIP_TEXT, lambda: ClipText(ClipTextConfig())),
}


@pytest.mark.parametrize("description", NETWORKS)
def test_our_networks_are_recognised_as_written(description):
    table, build = NETWORKS[description]
    with torch.device("meta"):
        state = build().state_dict()
    assert describe_state(from_ours(table, state)) == description


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA in kohya's"),
        ("unet.down_blocks.0.attn1.to_q.lora_A.weight", "a LoRA"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a file in the layout of CompVis"),
        ("conditioner.embedders.0.transformer.text_model.x", "a file in the layout of CompVis"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        ("some.thing", "nothing known (1 tensors, such as 'some.thing')"),
    ],
)
def test_others_are_recognised_by_their_keys(key, said):
    assert describe_state({key: torch.ones(1)}).startswith(said)


KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
PEFT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (
            {f"{KOHYA}.lora_down.weight": (8, 768), f"{KOHYA}.lora_up.weight": (320, 8)},
            "a LoRA of rank 8 in kohya's layout, for a Stable Diffusion 1.x U-Net",
        ),
        (
            {
                f"unet.{PEFT}.lora_A.weight": (4, 2048),
                f"unet.{PEFT}.lora_B.weight": (640, 4),
                "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": (16, 768),
            },
            "a LoRA of rank 4 to 16 in diffusers' layout, for an SDXL U-Net",
        ),
        (
            {
                f"base_model.model.{PEFT}.lora_A.weight": (4, 1024),
                f"base_model.model.{PEFT}.lora_magnitude_vector": (320,),
            },
            "a DoRA of rank 4 in peft's layout, for a Stable Diffusion 2.x U-Net",
        ),
        ({f"{KOHYA}.hada_w1_a": (320, 8)}, "a LoHa in kohya's layout"),
        (
            {
                f"{KOHYA}.hada_w1_a": (320, 8),
                f"{KOHYA}.hada_w1_b": (8, 768),
                f"{KOHYA}.dora_scale": (320, 1),
            },
            "a LoHa with DoRA of rank 8 in kohya's layout, for a Stable Diffusion 1.x U-Net",
        ),
        ({f"lycoris_{PEFT}.lokr_w1": (4, 4)}, "a LoKr in LyCORIS' layout"),
    ],
)
def test_an_adapter_says_its_kind_rank_layout_and_family(shapes, said):
    state = {key: torch.ones(shape) for key, shape in shapes.items()}
    assert describe_state(state) == said


def test_a_folder_says_what_it_is(tmp_path):
    assert describe_folder(tmp_path / "nowhere") == "not there"
    assert "it holds nothing" in describe_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip_text_model"}))
    assert describe_folder(tmp_path) == "a clip_text_model component"
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "FluxPipeline"}))
    assert describe_folder(tmp_path) == "a FluxPipeline folder"
    index.write_text("{")
    assert describe_folder(tmp_path) == "a folder whose model_index.json is broken"
    assert describe_folder(index) == "a file"
