"""diffusers' `UNet2DModel`, a U-Net without context: keys and `config.json`, to and from ours."""

from collections.abc import Mapping
from dataclasses import dataclass

from safelight.checkpoints.rules import Table
from safelight.checkpoints.tables.autoencoder import PICTURE_ATTENTION
from safelight.checkpoints.tables.configs import (
    Neutral,
    attending_levels,
    read_config,
    square,
    write_config,
)
from safelight.checkpoints.tables.unet import UNET
from safelight.config import Value
from safelight.errors import SafelightError
from safelight.models.unet import UNetConfig

UNET_2D = Table((*PICTURE_ATTENTION, *UNET.rules))

_DOWN = {False: "DownBlock2D", True: "AttnDownBlock2D"}
_UP = {False: "UpBlock2D", True: "AttnUpBlock2D"}
_BLOCKS = {attends: (_DOWN[attends], _UP[attends]) for attends in (False, True)}
_NEUTRAL: Neutral = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "dropout": (0.0,),
    "act_fn": ("silu", "swish"),
    "attn_norm_num_groups": (None,),
    "add_attention": (True,),
    # otherwise its middle attends without a norm, which no model of CompVis' does
    "resnet_time_scale_shift": ("default",),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "num_train_timesteps": (None,),
}


@dataclass(frozen=True)
class _Diffusers:
    """The keys that make a difference, with diffusers' own defaults."""

    sample_size: int | tuple[int, ...] | None = None
    in_channels: int = 3
    out_channels: int = 3
    freq_shift: float = 0.0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = (_DOWN[False],) + (_DOWN[True],) * 3
    up_block_types: tuple[str, ...] = (_UP[True],) * 3 + (_UP[False],)
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    attention_head_dim: int | None = 8  # channels of a head; None: one head
    norm_num_groups: int = 32
    norm_eps: float = 1e-5


def unet2d_config_from_diffusers(
    values: Mapping[str, Value], source: str = "unet/config.json"
) -> UNetConfig:
    """Translates a `UNet2DModel` configuration; `SafelightError` if it is of another kind."""
    theirs = read_config(_Diffusers, values, _NEUTRAL, source)
    levels = len(theirs.block_out_channels)
    attention = attending_levels(
        theirs.down_block_types, theirs.up_block_types, levels, _BLOCKS, source
    )
    heads: list[int] = []
    for channels in theirs.block_out_channels:
        width = channels if theirs.attention_head_dim is None else theirs.attention_head_dim
        if width < 1 or channels % width:
            raise SafelightError(
                f"{source}: {channels} channels do not split into heads of {width}."
            )
        heads.append(channels // width)
    return UNetConfig(
        in_channels=theirs.in_channels,
        out_channels=theirs.out_channels,
        sample_size=square(theirs.sample_size),
        block_out_channels=theirs.block_out_channels,
        layers_per_block=(theirs.layers_per_block,) * levels,
        attention=attention,
        transformer_layers=(1,) * levels,
        attention_heads=tuple(heads),
        only_cross_attention=(False,) * levels,
        cross_attention_dim=None,
        self_attention=True,
        norm_num_groups=theirs.norm_num_groups,
        norm_eps=theirs.norm_eps,
        flip_sin_to_cos=theirs.flip_sin_to_cos,
        freq_shift=theirs.freq_shift,
    )


def unet2d_config_to_diffusers(config: UNetConfig) -> dict[str, Value]:
    """The whole `config.json` of a U-Net of ours without context, which diffusers opens.

    Raises `ValueError` for one that `UNet2DModel` cannot be.
    """
    widths = {
        channels // heads
        for channels, heads in zip(config.block_out_channels, config.attention_heads, strict=True)
    }
    layers = set(config.layers_per_block)
    if len(widths) != 1 and set(config.attention_heads) != {1}:
        raise ValueError("UNet2DModel's heads are equally wide on all levels.")
    if config.resnet_scale_shift:
        raise ValueError("UNet2DModel with resnet_time_scale_shift is not written.")
    if len(layers) != 1 or not (config.mid_block and config.mid_attention):
        raise ValueError("UNet2DModel has equally many layers a level, and a middle that attends.")
    theirs = _Diffusers(
        sample_size=config.sample_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        freq_shift=config.freq_shift,
        flip_sin_to_cos=config.flip_sin_to_cos,
        down_block_types=tuple(_DOWN[attends] for attends in config.attention),
        up_block_types=_ups(config.attention),
        block_out_channels=config.block_out_channels,
        layers_per_block=layers.pop(),
        attention_head_dim=None if set(config.attention_heads) == {1} else widths.pop(),
        norm_num_groups=config.norm_num_groups,
        norm_eps=config.norm_eps,
    )
    return write_config("UNet2DModel", theirs, _NEUTRAL)


def _ups(attention: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple(_UP[attends] for attends in reversed(attention))
