"""Small discriminators upon the feature maps of a frozen network: one head a map.

Source: Sauer et al. 2023 (arXiv 2301.09515), section 3.2; Sauer et al. 2023 (ADD, arXiv
2311.17042), section 3.2; Sauer et al. 2024 (LADD, arXiv 2403.12015), section 3.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.errors import SafelightError
from safelight.nn.spectral import SpectralConv2d


@dataclass(frozen=True)
class HeadConfig:
    """The width of each head's layers."""

    channels: int = 128

    def __post_init__(self):
        if self.channels < 1 or self.channels % _GROUP:
            raise SafelightError(
                f"adversarial.heads.channels should be a multiple of {_GROUP}, got {self.channels}."
            )


class AdversaryHeads(nn.Module):
    """Feature maps of `widths` channels, and what is known of the picture, to logits; high means
    real.

    `about_dim` is the width of that knowledge: text, noise level, an embedding of the picture.
    """

    def __init__(self, widths: Sequence[int], about_dim: int, config: HeadConfig):
        super().__init__()
        self.heads = nn.ModuleList(_Head(width, about_dim, config.channels) for width in widths)

    def logits(
        self, maps: Sequence[Float[Tensor, "b _ _ _"]], about: Float[Tensor, "b k"]
    ) -> list[Float[Tensor, "b 1 _ _"]]:
        """One logit for each place of each map.

        Not `forward`, so that `train.optim.prepare` compiles nothing here: compiled layers cannot
        be differentiated twice, as a penalty on gradients is.
        """
        return [head(part, about) for head, part in zip(self, maps, strict=True)]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.heads)

    def iterate(self) -> None:
        """Brings all spectral norms up to date; to be called once a step."""
        for module in self.modules():
            if isinstance(module, SpectralConv2d):
                module.iterate()


class _Head(nn.Module):
    """Two convolutions and a projection (Miyato and Koyama 2018, arXiv 1802.05637, eq. 3).

    Differs from ADD's heads in that they are convolutions of two dimensions, as LADD's, and
    normalise by groups, not by batches, so that a batch in parts gives the same gradients.
    """

    def __init__(self, width: int, about_dim: int, channels: int):
        super().__init__()
        self.conv_in = SpectralConv2d(width, channels, 1)
        self.norm_in = nn.GroupNorm(channels // _GROUP, channels)
        self.conv = SpectralConv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(channels // _GROUP, channels)
        self.conv_out = SpectralConv2d(channels, 1, 1)
        self.about_norm = nn.LayerNorm(about_dim, elementwise_affine=False)
        self.project = nn.Linear(about_dim, channels, bias=False)

    def forward(
        self, x: Float[Tensor, "b c h w"], about: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b 1 h w"]:
        h = F.leaky_relu(self.norm_in(self.conv_in(x)), 0.2)  # (b, channels, h, w)
        h = h + F.leaky_relu(self.norm(self.conv(h)), 0.2)
        told = self.project(self.about_norm(about))[:, :, None, None]
        return self.conv_out(h) + (h * told).sum(1, keepdim=True) / math.sqrt(h.shape[1])


_GROUP = 8  # channels: at a single place fewer would be scaled to little more than their signs
