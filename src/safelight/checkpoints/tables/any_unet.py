"""The classes of U-Nets that a model's folder may hold: what each is built as, and written as."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from safelight.checkpoints.rules import Table
from safelight.checkpoints.tables.unet import (
    UNET,
    unet_config_from_diffusers,
    unet_config_to_diffusers,
)
from safelight.checkpoints.tables.unet2d import (
    UNET_2D,
    unet2d_config_from_diffusers,
    unet2d_config_to_diffusers,
)
from safelight.checkpoints.tables.video import (
    OWN,
    SVD,
    VIDEO_UNET,
    video_config_from_diffusers,
    video_config_to_diffusers,
)
from safelight.config import Value
from safelight.models.unet import UNet, UNetConfig
from safelight.models.video import VideoUNet

UNETS = ("UNet2DConditionModel", "UNet2DModel", SVD, OWN)
"""The classes that are read."""


@dataclass(frozen=True)
class UNetPlan:
    """How a U-Net is built, what its tensors are called, and how many layers it has in all."""

    build: Callable[[], UNet]
    table: Table
    layers: tuple[int, ...]


def unet_plan(values: Mapping[str, Value], source: str) -> UNetPlan:
    """The plan for a configuration of one of `UNETS`; `SafelightError` if it cannot be built."""
    kind = values.get("_class_name")
    if kind in (SVD, OWN):
        shape, temporal = video_config_from_diffusers(values, source)
        return UNetPlan(lambda: VideoUNet(shape, temporal), VIDEO_UNET, layers_of(shape))
    if kind == "UNet2DModel":
        plain = unet2d_config_from_diffusers(values, source)
        return UNetPlan(lambda: UNet(plain), UNET_2D, layers_of(plain))
    config = unet_config_from_diffusers(values, source)
    return UNetPlan(lambda: UNet(config), UNET, layers_of(config))


def unet_values(unet: UNet) -> tuple[dict[str, Value], Table]:
    """The configuration under which a U-Net is written, and what its tensors are called there."""
    if isinstance(unet, VideoUNet):
        return video_config_to_diffusers(unet.config, unet.temporal), VIDEO_UNET
    if unet.config.self_attention:
        return unet2d_config_to_diffusers(unet.config), UNET_2D
    return unet_config_to_diffusers(unet.config), UNET


def unet_class(unet: UNet) -> str:
    """The class that a model's index names for a U-Net."""
    if isinstance(unet, VideoUNet):
        return str(video_config_to_diffusers(unet.config, unet.temporal)["_class_name"])
    return "UNet2DConditionModel"


def layers_of(config: UNetConfig) -> tuple[int, ...]:
    """How many layers of each kind and level a U-Net has."""
    return (*config.layers_per_block, *config.transformer_layers)
