"""Parts of Stable Video Diffusion in diffusers and transformers, small and of random weights."""

import re

from diffusers import (
    AutoencoderKLTemporalDecoder,
    MotionAdapter,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from torch import Tensor

from .conftest import shaken

NUMBER = 8  # features of each number
PROJECTION = 24  # width of the picture's vector


def svd_unet(attends=(True, False)) -> UNetSpatioTemporalConditionModel:
    """A video U-Net of two levels."""
    down = {True: "CrossAttnDownBlockSpatioTemporal", False: "DownBlockSpatioTemporal"}
    up = {True: "CrossAttnUpBlockSpatioTemporal", False: "UpBlockSpatioTemporal"}
    return shaken(
        UNetSpatioTemporalConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=tuple(down[attend] for attend in attends),
            up_block_types=tuple(up[attend] for attend in reversed(attends)),
            cross_attention_dim=PROJECTION,
            addition_time_embed_dim=NUMBER,
            projection_class_embeddings_input_dim=3 * NUMBER,
            num_attention_heads=(2, 4),
            num_frames=3,
        )
    )


def temporal_vae() -> AutoencoderKLTemporalDecoder:
    """An autoencoder that halves a picture's sides."""
    return shaken(
        AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            layers_per_block=2,
            sample_size=32,
            scaling_factor=0.4,
        )
    )


def moving_unet() -> UNet2DConditionModel:
    """A picture's U-Net, of the shape that `motion_adapter` is for."""
    return shaken(
        UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
        )
    )


def motion_adapter(*, middle: bool = True) -> MotionAdapter:
    """AnimateDiff's modules for it."""
    return shaken(
        MotionAdapter(
            block_out_channels=(32, 64),
            motion_layers_per_block=1,
            motion_max_seq_length=8,
            use_motion_mid_block=middle,
        )
    )


def original_names(adapter: MotionAdapter) -> dict[str, Tensor]:
    """The adapter's tensors under the names of AnimateDiff's authors."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in adapter.state_dict().items():
        block, index, rest = re.match(r"(.*motion_modules)\.(\d+)\.(.*)", key).groups()
        for ours, theirs in (
            ("attn1.", "attention_blocks.0."),
            ("attn2.", "attention_blocks.1."),
            ("norm1.", "norms.0."),
            ("norm2.", "norms.1."),
            ("norm3.", "ff_norm."),
        ):
            rest = rest.replace(f".{ours}", f".{theirs}")
        if rest.endswith("pos_embed.pe"):
            start = rest.removesuffix("pos_embed.pe")
            for number in (0, 1):
                name = f"{start}attention_blocks.{number}.pos_encoder.pe"
                renamed[f"{block}.{index}.temporal_transformer.{name}"] = tensor.clone()
            continue
        renamed[f"{block}.{index}.temporal_transformer.{rest}"] = tensor.clone()
    return renamed
