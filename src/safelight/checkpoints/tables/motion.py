"""AnimateDiff's motion modules: diffusers' `MotionAdapter` and the files of its authors."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.configs import (
    Neutral,
    check_heads,
    fitting,
    one_or_each,
    per_level,
    read_config,
    write_config,
)
from safelight.checkpoints.tables.unet import UNET
from safelight.config import Value
from safelight.errors import SafelightError
from safelight.models.motion import MotionConfig

MOTION = Table(UNET.rules, dropped=("{block}.pos_embed.pe",))
"""diffusers' names; the places of frames are computed."""

_BLOCK = "{block}.motion_modules.{i}"
_INNER = f"{_BLOCK}.temporal_transformer"
ORIGINAL_MOTION = Table(
    (
        *(
            Rule(
                f"{_BLOCK}.transformer_blocks.{{j}}.{ours}.{{rest}}",
                f"{_INNER}.transformer_blocks.{{j}}.{theirs}.{{rest}}",
            )
            for ours, theirs in (
                ("attn1.to_out", "attention_blocks.0.to_out.0"),
                ("attn2.to_out", "attention_blocks.1.to_out.0"),
                ("attn1", "attention_blocks.0"),
                ("attn2", "attention_blocks.1"),
                ("norm1", "norms.0"),
                ("norm2", "norms.1"),
                ("norm3", "ff_norm"),
                ("ff.proj_in", "ff.net.0.proj"),
                ("ff.proj_out", "ff.net.2"),
            )
        ),
        Rule(f"{_BLOCK}.{{rest}}", f"{_INNER}.{{rest}}"),
    ),
    dropped=("{block}.pos_encoder.pe",),
)
"""The names of AnimateDiff's authors, `mm_sd_v15.ckpt` and its like."""

MOTION_MARK = "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"
_PLACES = (
    "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0."
    "pos_encoder.pe"
)
_HEADS = 8  # in every public file
_NEUTRAL: Neutral = {
    "motion_mid_block_layers_per_block": (1,),
    "motion_transformer_layers_per_mid_block": (1, (1,), [1]),
    "conv_in_channels": (None,),
}


@dataclass(frozen=True)
class _Diffusers:
    """The keys of `MotionAdapter` that make a difference, with diffusers' own defaults."""

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    motion_layers_per_block: int | tuple[int, ...] = 2
    motion_transformer_layers_per_block: int = 1
    motion_num_attention_heads: int = 8
    motion_norm_num_groups: int = 32
    motion_max_seq_length: int = 32
    use_motion_mid_block: bool = True


def motion_config_from_diffusers(
    values: Mapping[str, Value], source: str = "motion_adapter/config.json"
) -> MotionConfig:
    """Translates a `MotionAdapter` configuration; `SafelightError` if it is of another kind."""
    theirs = read_config(_Diffusers, values, _NEUTRAL, source)
    levels = len(theirs.block_out_channels)
    for channels in theirs.block_out_channels:
        check_heads(channels, theirs.motion_num_attention_heads, source)
    if theirs.motion_transformer_layers_per_block != 1:
        raise SafelightError(f"{source} has more than one transformer layer a motion module.")
    with fitting(source):
        return MotionConfig(
            block_out_channels=theirs.block_out_channels,
            layers_per_block=per_level(
                theirs.motion_layers_per_block, levels, "motion_layers_per_block", source
            ),
            transformer_layers=theirs.motion_transformer_layers_per_block,
            heads=theirs.motion_num_attention_heads,
            groups=theirs.motion_norm_num_groups,
            max_frames=theirs.motion_max_seq_length,
            middle=theirs.use_motion_mid_block,
        )


def motion_config_to_diffusers(config: MotionConfig) -> dict[str, Value]:
    """The whole `config.json` of an adapter of ours, which diffusers opens."""
    theirs = _Diffusers(
        block_out_channels=config.block_out_channels,
        motion_layers_per_block=one_or_each(config.layers_per_block),
        motion_transformer_layers_per_block=config.transformer_layers,
        motion_num_attention_heads=config.heads,
        motion_norm_num_groups=config.groups,
        motion_max_seq_length=config.max_frames,
        use_motion_mid_block=config.middle,
    )
    return write_config("MotionAdapter", theirs, _NEUTRAL)


def motion_config_of(state: Mapping[str, Tensor], source: str) -> MotionConfig:
    """The shape of the adapter whose tensors, in its authors' names, these are.

    Heads and groups leave no trace: there are 8 and 32, as in every public file. Raises
    `SafelightError` for anything but an adapter that is whole.
    """
    try:
        channels: list[int] = []
        layers: list[int] = []
        while f"down_blocks.{len(channels)}.motion_modules.0.temporal_transformer.norm.weight" in (
            state
        ):
            block = f"down_blocks.{len(channels)}.motion_modules"
            channels.append(state[f"{block}.0.temporal_transformer.norm.weight"].shape[0])
            count = 0
            while f"{block}.{count}.temporal_transformer.norm.weight" in state:
                count += 1
            layers.append(count)
        return MotionConfig(
            block_out_channels=tuple(channels),
            layers_per_block=tuple(layers),
            heads=_HEADS,
            max_frames=state[_PLACES].shape[1],
            middle=any(key.startswith("mid_block.") for key in state),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise SafelightError(f"{source} holds no motion module that is whole ({error}).") from error
