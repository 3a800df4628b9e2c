"""diffusers' `ControlNetModel`: keys and `config.json`, to and from ours; and the keys of the
original files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.compvis import unet_table
from safelight.checkpoints.tables.configs import read_config, write_config
from safelight.checkpoints.tables.unet import (
    UNET,
    unet_config_from_diffusers,
    unet_config_to_diffusers,
)
from safelight.config import Value, to_dict
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNetConfig
from safelight.models.unet import UNetConfig

CONTROLNET = UNET
"""The names of a U-Net's first half, and below them diffusers' own."""

CLASS, SMALL_CLASS = "ControlNetModel", "SmallControlNetModel"
"""diffusers' own, and ours for one that steers a U-Net of other channels than its own, which
diffusers does not know.
"""
_UP = {"DownBlock2D": "UpBlock2D", "CrossAttnDownBlock2D": "CrossAttnUpBlock2D"}
_NOT_THEIRS = ("out_channels", "sample_size", "up_block_types", "time_cond_proj_dim")
"""Keys of a U-Net's configuration that a ControlNet's has not."""


@dataclass(frozen=True)
class _Diffusers:
    """The keys beside a U-Net's, with diffusers' own defaults."""

    conditioning_channels: int = 3
    conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)
    controlnet_conditioning_channel_order: Literal["rgb", "bgr"] = "rgb"
    global_pool_conditions: bool = False
    steered_block_out_channels: tuple[int, ...] | None = None  # of the second class alone


def controlnet_config_from_diffusers(
    values: Mapping[str, Value], source: str = "controlnet/config.json"
) -> ControlNetConfig:
    """Translates the configuration of either class; `SafelightError` if it is another kind."""
    own = {key: value for key, value in values.items() if key in to_dict(_Diffusers())}
    theirs = read_config(_Diffusers, own, {}, source)
    unet = {key: value for key, value in values.items() if key not in own}
    downs = unet.get("down_block_types")
    if isinstance(downs, list):
        unet["up_block_types"] = [_UP.get(str(kind), str(kind)) for kind in reversed(downs)]
    config = unet_config_from_diffusers(unet, source)
    try:
        return ControlNetConfig(
            unet=config,
            hint_channels=theirs.conditioning_channels,
            hint_block_channels=theirs.conditioning_embedding_out_channels,
            bgr=theirs.controlnet_conditioning_channel_order == "bgr",
            pooled=theirs.global_pool_conditions,
            steered_channels=theirs.steered_block_out_channels,
        )
    except ValueError as error:
        raise SafelightError(f"{source}: {error}") from error


def controlnet_config_to_diffusers(config: ControlNetConfig) -> dict[str, Value]:
    """The whole `config.json` of a ControlNet of ours, which diffusers opens."""
    theirs = _Diffusers(
        conditioning_channels=config.hint_channels,
        conditioning_embedding_out_channels=config.hint_block_channels,
        controlnet_conditioning_channel_order="bgr" if config.bgr else "rgb",
        global_pool_conditions=config.pooled,
        steered_block_out_channels=config.steered_channels,
    )
    unet = unet_config_to_diffusers(config.unet)
    kept = {key: value for key, value in unet.items() if key not in _NOT_THEIRS}
    if config.steered_channels is not None:
        return kept | write_config(SMALL_CLASS, theirs, {})
    own = write_config(CLASS, theirs, {})
    own.pop("steered_block_out_channels")
    return kept | own


def original_table(config: ControlNetConfig) -> Table:
    """The keys of a ControlNet of this shape in the original layout, without their prefix, beside
    diffusers'.
    """
    embedding, hint = "controlnet_cond_embedding", "input_hint_block"
    blocks = 2 * (len(config.hint_block_channels) - 1)
    return Table(
        (
            Rule(f"{embedding}.conv_in.{{p}}", f"{hint}.0.{{p}}"),
            *(
                Rule(f"{embedding}.blocks.{i}.{{p}}", f"{hint}.{2 * i + 2}.{{p}}")
                for i in range(blocks)
            ),
            Rule(f"{embedding}.conv_out.{{p}}", f"{hint}.{2 * blocks + 2}.{{p}}"),
            Rule("controlnet_down_blocks.{i}.{p}", "zero_convs.{i}.0.{p}"),
            Rule("controlnet_mid_block.{p}", "middle_block_out.0.{p}"),
            *unet_table(config.unet).rules,
        )
    )


def blocks_of(state: Mapping[str, Tensor]) -> ControlNetConfig:
    """A configuration with the blocks of a ControlNet whose tensors, in diffusers' names, these
    are; its widths are left at ones.
    """
    layers: list[int] = []
    while (count := _count(state, f"down_blocks.{len(layers)}.resnets.{{}}.conv1.weight")) > 0:
        layers.append(count)
    ones = (1,) * len(layers)
    attends = tuple(f"down_blocks.{i}.attentions.0.norm.weight" in state for i in range(len(ones)))
    classes = any(key.startswith("class_embedding.") for key in state)
    halvings = _count(state, "controlnet_cond_embedding.blocks.{}.weight") // 2
    return ControlNetConfig(
        UNetConfig(
            block_out_channels=ones,
            layers_per_block=tuple(layers),
            attention=attends,
            transformer_layers=ones,
            attention_heads=ones,
            only_cross_attention=(False,) * len(ones),
            class_dim=1 if classes else None,
        ),
        hint_block_channels=(1,) * (halvings + 1),
    )


def _count(state: Mapping[str, Tensor], template: str) -> int:
    count = 0
    while template.format(count) in state:
        count += 1
    return count
