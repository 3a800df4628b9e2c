"""Holistically-nested edge detection: the network behind soft edges."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512, 512)
_LAYERS = (2, 2, 3, 3, 3)
MIN_SIDE = 16  # pixels, which four poolings leave one of


class Hed(nn.Module):
    """VGG16's five stages, a map of edges from each, and their combination (Xie and Tu 2015,
    arXiv 1504.06375).

    Levels (b, 3, h, w) of RGB from 0 to 255, h and w at least 16, to how surely each pixel is an
    edge, 0 to 1. Names of parameters are those of lllyasviel's `ControlNetHED`, whose combination
    is the mean.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS):
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        inputs = (3, *widths[:-1])
        self.blocks = nn.ModuleList(map(_Stage, inputs, widths, _LAYERS))
        self.combine = nn.Conv2d(len(widths), 1, 1)

    def forward(self, levels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """The edges."""
        x = levels - self.norm
        maps: list[Tensor] = []
        for place, stage in enumerate(self.blocks):
            x = stage(F.max_pool2d(x, 2) if place else x)
            edges = cast(_Stage, stage).projection(x)  # (b, 1, h / 2^place, w / 2^place)
            maps.append(F.interpolate(edges, levels.shape[2:], mode="bilinear"))
        return self.combine(torch.cat(maps, dim=1)).sigmoid()


class _Stage(nn.Module):
    def __init__(self, inputs: int, width: int, layers: int):
        super().__init__()
        widths = (inputs, *[width] * layers)
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, padding=1) for i in range(layers)
        )
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        for conv in self.convs:
            x = F.relu(conv(x))
        return x
