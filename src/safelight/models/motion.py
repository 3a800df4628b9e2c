"""AnimateDiff: motion modules between the layers of a picture's U-Net, for clips of a prompt.

Source: Guo et al. 2023 (arXiv 2307.04725), sections 4.1 and 4.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from safelight.models.unet import UNet, UNetConfig
from safelight.models.video import FrameUNet, levels_of
from safelight.nn.motion import MotionModule, PerFrame
from safelight.nn.substitute import substituted


@dataclass(frozen=True)
class MotionConfig:
    """The shape of an adapter. Tuples hold one entry a level, from the finest to the coarsest.

    Attributes:
        layers_per_block: motion modules of a level on the way down; there is one more on the way
            up, as there are residual blocks.
        transformer_layers: of each module.
        middle: whether there is one in the middle.
        max_frames: that a module can tell apart.

    Raises `ValueError` where tuples are not equally long.
    """

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: tuple[int, ...] = (2, 2, 2, 2)
    transformer_layers: int = 1
    heads: int = 8
    groups: int = 32
    max_frames: int = 32
    middle: bool = True

    def __post_init__(self):
        if len(self.layers_per_block) != len(self.block_out_channels):
            raise ValueError(
                f"layers_per_block has {len(self.layers_per_block)} entries for "
                f"{len(self.block_out_channels)} levels of block_out_channels."
            )


class MotionAdapter(nn.Module):
    """The motion modules of a U-Net by themselves, named as in diffusers' `MotionAdapter`."""

    def __init__(self, config: MotionConfig):
        super().__init__()
        self.config = config
        levels = list(zip(config.block_out_channels, config.layers_per_block, strict=True))
        self.down_blocks = nn.ModuleList(_Modules(config, *level) for level in levels)
        widest = config.block_out_channels[-1]
        self.mid_block = _Modules(config, widest, 1) if config.middle else None
        self.up_blocks = nn.ModuleList(
            _Modules(config, width, count + 1) for width, count in reversed(levels)
        )

    def modules_of(self) -> Iterator[nn.ModuleList]:
        """The modules of each block in the order in which they run; none for a middle without."""
        for block in self.down_blocks:
            yield _modules(block)
        yield nn.ModuleList() if self.mid_block is None else _modules(self.mid_block)
        for block in self.up_blocks:
            yield _modules(block)


class MotionUNet(FrameUNet):
    """A picture's U-Net with motion modules behind its layers; see `with_motion`.

    Without `cond.num_frames` it is the picture's U-Net.
    """

    def __init__(self, config: UNetConfig, motion: MotionConfig):
        super().__init__(config)
        self.motion = motion

    @property
    def chunk(self) -> int | None:
        """How many frames at a time go through the layers of pictures; None for all."""
        return next(module.chunk for module in self.modules() if isinstance(module, PerFrame))

    @chunk.setter
    def chunk(self, frames: int | None) -> None:
        for module in self.modules():
            if isinstance(module, PerFrame):
                module.chunk = frames


def with_motion(unet: UNet, adapter: MotionAdapter) -> MotionUNet:
    """A second U-Net that shares all weights with the first and the adapter; both stay as they are.

    A module stands behind each transformer, or behind each residual block where a level has none.
    Raises `ValueError` for an adapter of another U-Net's shape.
    """
    check_motion_fit(unet, adapter.config)
    twin = substituted(unet, {})
    with torch.device("meta"):
        moving = MotionUNet(unet.config, adapter.config)
    for name, child in twin.named_children():
        setattr(moving, name, child)
    for level, modules in zip(levels_of(moving), adapter.modules_of(), strict=True):
        alone = not level.attentions
        motions: list[MotionModule | None] = [None] * len(level.resnets)
        for i, module in enumerate(modules):
            assert isinstance(module, MotionModule)
            motions[i] = module
        for i, resnet in enumerate(level.resnets):
            level.resnets[i] = PerFrame(resnet, 2, motions[i] if alone else None)
        for i, transformer in enumerate(level.attentions):
            level.attentions[i] = PerFrame(transformer, 3, motions[i])
    return moving.train(unet.training)


def check_motion_fit(unet: UNet, config: MotionConfig) -> None:
    """Raises `ValueError` for an adapter of another U-Net's shape."""
    theirs = (config.block_out_channels, config.layers_per_block)
    ours = (unet.config.block_out_channels, unet.config.layers_per_block)
    if theirs != ours or unet.mid_block is None or unet.config.cross_attention_dim is None:
        raise ValueError(
            f"The motion module is for levels of {_listed(theirs[0])} channels with "
            f"{_listed(theirs[1])} layers; this U-Net has {_listed(ours[0])} with "
            f"{_listed(ours[1])}."
        )


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


class _Modules(nn.Module):
    def __init__(self, config: MotionConfig, channels: int, count: int):
        super().__init__()
        self.motion_modules = nn.ModuleList(
            MotionModule(
                channels,
                config.heads,
                config.transformer_layers,
                groups=config.groups,
                max_frames=config.max_frames,
            )
            for _ in range(count)
        )


def _modules(block: nn.Module) -> nn.ModuleList:
    modules = block.motion_modules
    assert isinstance(modules, nn.ModuleList)
    return modules
