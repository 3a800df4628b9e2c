"""The U-Net of latent diffusion: every configuration of Stable Diffusion 1.x, 2.x and XL.

Source: Rombach et al. 2022 (arXiv 2112.10752), sections 3.2 and 3.3.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.unet_encoder import (
    ClassKind,
    Emb,
    UNetConfig,
    UNetEncoder,
    residual_block,
    skip_channels,
    transformers_of,
)
from safelight.nn.attention import PictureAttention, SpatialTransformer
from safelight.nn.blocks import Picture, ResBlock, Upsample
from safelight.nn.recompute import recomputed
from safelight.types import Conditioning

__all__ = ["ClassKind", "UNet", "UNetConfig", "map_widths", "zero_residuals"]

_WayUp: TypeAlias = tuple[nn.Module, list[Tensor], tuple[int, int] | None]


class UNet(UNetEncoder):
    """Predicts from a noised latent, its time and its conditioning; a `Network`."""

    def __init__(self, config: UNetConfig):
        super().__init__(config)
        channels = config.block_out_channels
        skips = skip_channels(config)
        self.up_blocks = nn.ModuleList()
        self._up_layers = [layers + 1 for layers in reversed(config.layers_per_block)]
        before = channels[-1]
        for level in reversed(range(len(channels))):
            after = channels[level]
            layers = config.layers_per_block[level] + 1
            inputs = [(before if j == 0 else after) + skips.pop() for j in range(layers)]
            self.up_blocks.append(_UpBlock(config, level, inputs, upsample=level > 0))
            before = after

        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels[0], config.norm_eps)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """Runs the network.

        Args:
            x: scaled noised latents, (b, in_channels less those of `cond.concat`, h, w), any h and
            w.
            t: the network's time, (b,).
            cond: `context` (b, n, cross_attention_dim), `vector` and `concat` as the configuration
            asks;
                `residuals`, if any, are added to the skips in order and the last to the middle;
                `features` as in `descend`.

        Raises:
            ValueError: a part of the conditioning is missing or has the wrong width.
        """
        return self.from_embedding(x, self.embed(t, cond), cond)

    def from_embedding(
        self, x: Float[Tensor, "b c h w"], emb: Emb, cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """`forward` once `emb = embed(t, cond)` is known."""
        x, skips = self._to_the_middle(x, emb, cond)
        for block, taken, size in self._ways_up(skips):
            x = recomputed(block, self.gradient_checkpointing)(x, emb, cond, taken, size)
        return self._finished(x)

    def with_deep(
        self, x: Float[Tensor, "b c h w"], emb: Emb, cond: Conditioning
    ) -> tuple[Float[Tensor, "b c_out h w"], Picture]:
        """`from_embedding`, and what it was made of by `from_deep`."""
        x, skips = self._to_the_middle(x, emb, cond)
        *ways, (block, taken, _) = self._ways_up(skips)
        for other, skips_of_other, size in ways:
            x = other(x, emb, cond, skips_of_other, size)
        assert isinstance(block, _UpBlock)
        deep = block.before_the_last(x, emb, cond, taken)
        return self._finished(block.last(deep, emb, cond, taken[0])), deep

    def from_deep(
        self, x: Float[Tensor, "b c h w"], emb: Emb, cond: Conditioning, deep: Picture
    ) -> Float[Tensor, "b c_out h w"]:
        """What the first and the last layers make of x beside what entered the last before."""
        skip = self._entered(x, cond)
        if cond.residuals:
            skip = skip + cond.residuals[0]
        block = self.up_blocks[-1]
        assert isinstance(block, _UpBlock)
        return self._finished(block.last(deep, emb, cond, skip))

    def maps(
        self,
        x: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        cond: Conditioning,
        *,
        up: bool = True,
    ) -> list[Picture]:
        """What each block makes: those on the way down, the middle, and with `up` those on the way
        up; (b, `map_widths`, h', w') each. Inputs and errors are those of `forward`.
        """
        emb = self.embed(t, cond)
        x, skips = self._to_the_middle(x, emb, cond)
        last = len(self.down_blocks) - 1  # whose block halves nothing
        ends = accumulate(self.config.layers_per_block)
        maps = [skips[end + min(level + 1, last)] for level, end in enumerate(ends)]
        if self.mid_block is not None:
            maps.append(x)
        for block, taken, size in self._ways_up(skips) if up else ():
            x = recomputed(block, self.gradient_checkpointing)(x, emb, cond, taken, size)
            maps.append(x)
        return maps

    def _to_the_middle(
        self, x: Picture, emb: Emb, cond: Conditioning
    ) -> tuple[Picture, list[Tensor]]:
        """`descend` from the input on, with the residuals of control networks."""
        x, skips = self.descend(self._entered(x, cond), emb, cond)
        if cond.residuals:
            *added, middle = cond.residuals
            skips = [skip + more for skip, more in zip(skips, added, strict=True)]
            x = x + middle
        return x, skips

    def _entered(self, x: Picture, cond: Conditioning) -> Picture:
        return self.conv_in(x if cond.concat is None else torch.cat([x, cond.concat], dim=1))

    def _finished(self, x: Picture) -> Picture:
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def _ways_up(self, skips: list[Tensor]) -> Iterator[_WayUp]:
        """The blocks on the way up, each with the skips that it takes and the size of the next."""
        for block, layers in zip(self.up_blocks, self._up_layers, strict=True):
            taken, skips = skips[-layers:], skips[:-layers]
            size = (skips[-1].shape[-2], skips[-1].shape[-1]) if skips else None
            yield block, taken, size


def map_widths(config: UNetConfig, *, up: bool = True) -> list[int]:
    """The channels of each of `UNet.maps`."""
    down = list(config.block_out_channels)
    middle = down[-1:] if config.mid_block else []
    return [*down, *middle, *(reversed(down) if up else ())]


class _UpBlock(nn.Module):
    """Residual blocks that each take a skip, transformers where the level has attention; a
    doubling.
    """

    def __init__(self, config: UNetConfig, level: int, inputs: list[int], *, upsample: bool):
        super().__init__()
        channels = config.block_out_channels[level]
        self.resnets = nn.ModuleList(residual_block(config, width, channels) for width in inputs)
        self.attentions = transformers_of(config, level, len(inputs))
        self.upsampler = Upsample(channels) if upsample else None

    def forward(
        self,
        x: Picture,
        emb: Emb,
        cond: Conditioning,
        skips: list[Tensor],
        size: tuple[int, int] | None,
    ) -> Picture:
        deep = self.before_the_last(x, emb, cond, skips)
        x = self.last(deep, emb, cond, skips[0])
        return x if self.upsampler is None else self.upsampler(x, size)

    def before_the_last(
        self, x: Picture, emb: Emb, cond: Conditioning, skips: list[Tensor]
    ) -> Picture:
        """What its last layer is given, beside the first of the skips."""
        for i, skip in enumerate(reversed(skips[1:])):
            x = self._layer(i, x, emb, cond, skip)
        return x

    def last(self, x: Picture, emb: Emb, cond: Conditioning, skip: Tensor) -> Picture:
        """Its last layer."""
        return self._layer(len(self.resnets) - 1, x, emb, cond, skip)

    def _layer(self, i: int, x: Picture, emb: Emb, cond: Conditioning, skip: Tensor) -> Picture:
        x = self.resnets[i](torch.cat([x, skip], dim=1), emb)
        return x if self.attentions is None else self.attentions[i](x, cond.context)


def zero_residuals(unet: UNet) -> None:
    """Zeroes the last layer of every residual branch and of the network, for training from scratch.

    A fresh network then starts as the identity on its skips (Dhariwal and Nichol 2021, appendix C).
    """
    for module in unet.modules():
        if isinstance(module, ResBlock):
            _zero(module.conv2)
        elif isinstance(module, SpatialTransformer):
            _zero(module.proj_out)
        elif isinstance(module, PictureAttention):
            _zero(module.to_out)
    _zero(unet.conv_out)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
