"""diffusers' `ControlNetModel`: keys and `config.json`, to and from ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from safelight.checkpoints.tables.configs import read_config, write_config
from safelight.checkpoints.tables.unet import (
    UNET,
    unet_config_from_diffusers,
    unet_config_to_diffusers,
)
from safelight.config import Value, to_dict
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNetConfig

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
