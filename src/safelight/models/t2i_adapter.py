"""A T2I-Adapter: features of a picture that are added to a U-Net on its way down.

They depend on the picture alone, neither on time nor on what is sampled.

Source: Mou et al. 2023 (arXiv 2302.08453), section 3.3; parameter names as in diffusers'
`T2IAdapter`.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.blocks import Picture

AdapterKind = Literal["full", "full_xl", "light"]
_XL_HALVING = 2  # the only level of the full adapter for SDXL that halves


@dataclass(frozen=True)
class T2IAdapterConfig:
    """The shape of a T2I-Adapter.

    Attributes:
        kind: "full", "full_xl" for Stable Diffusion XL, or "light", which works in a quarter of the
            channels.
        hint_channels: of the picture that it is given, in [0, 1].
        block_out_channels: of each level, from the finest to the coarsest.
        layers_per_block: residual blocks of each level.
        factor: how many pixels of a hint's side are folded into its channels at first.
    """

    kind: AdapterKind = "full"
    hint_channels: int = 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    factor: int = 8

    def __post_init__(self):
        if not self.block_out_channels or self.factor < 1:
            raise ValueError("A T2I-Adapter needs a level and a factor of 1 or more.")


class T2IAdapter(nn.Module):
    """What a picture adds to each level of a U-Net."""

    def __init__(self, config: T2IAdapterConfig):
        super().__init__()
        self.config = config
        channels, light = config.block_out_channels, config.kind == "light"
        folded = config.hint_channels * config.factor**2
        self.conv_in = None if light else nn.Conv2d(folded, channels[0], 3, padding=1)
        self.body = nn.ModuleList()
        before = folded if light else channels[0]
        for level, after in enumerate(channels):
            halve = level == _XL_HALVING if config.kind == "full_xl" else level > 0
            block = _LightBlock if light else _FullBlock
            self.body.append(block(before, after, config.layers_per_block, halve=halve))
            before = after

    @property
    def hint_channels(self) -> int:
        """Of the picture that it is given."""
        return self.config.hint_channels

    @property
    def pooled(self) -> bool:
        """Whether it adds the same everywhere, which none does."""
        return False

    @property
    def parts(self) -> int:
        """How many tensors it adds: one to each level, and of SDXL's the last to the middle."""
        return len(self.body)

    def forward(self, hint: Float[Tensor, "b k H W"]) -> tuple[Picture, ...]:
        """The features of each level.

        Args:
            hint: a picture in [0, 1], as large as the one that is made.

        Raises:
            ValueError: its sides are no multiples of `config.factor`.
        """
        factor = self.config.factor
        if hint.shape[-2] % factor or hint.shape[-1] % factor:
            raise ValueError(
                f"Expected a hint whose sides are multiples of {factor}, got {hint.shape[-1]} x "
                f"{hint.shape[-2]}."
            )
        x = F.pixel_unshuffle(hint, factor)
        if self.conv_in is not None:
            x = self.conv_in(x)
        features: list[Tensor] = []
        for block in self.body:
            x = block(x)
            features.append(x)
        return tuple(features)


class _FullBlock(nn.Module):
    """A halving, a change of channels where they change, and residual blocks."""

    def __init__(self, before: int, after: int, layers: int, *, halve: bool):
        super().__init__()
        self.halve = halve
        self.in_conv = nn.Conv2d(before, after, 1) if before != after else None
        self.resnets = nn.Sequential(*(_ResBlock(after, 1) for _ in range(layers)))

    def forward(self, x: Picture) -> Picture:
        x = _halved(x) if self.halve else x
        x = x if self.in_conv is None else self.in_conv(x)
        return self.resnets(x)


class _LightBlock(nn.Module):
    """A halving, and residual blocks in a quarter of the channels."""

    def __init__(self, before: int, after: int, layers: int, *, halve: bool):
        super().__init__()
        self.halve = halve
        inner = after // 4
        self.in_conv = nn.Conv2d(before, inner, 1)
        self.resnets = nn.Sequential(*(_ResBlock(inner, 3) for _ in range(layers)))
        self.out_conv = nn.Conv2d(inner, after, 1)

    def forward(self, x: Picture) -> Picture:
        x = _halved(x) if self.halve else x
        return self.out_conv(self.resnets(self.in_conv(x)))


class _ResBlock(nn.Module):
    """Two convolutions, the second of a window of `kernel` pixels, and the way around them."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.block1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Picture) -> Picture:
        return x + self.block2(F.relu(self.block1(x)))


def _halved(x: Picture) -> Picture:
    return F.avg_pool2d(x, 2, ceil_mode=True)
