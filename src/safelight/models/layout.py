"""Boxes as tokens: what GLIGEN calls grounding tokens.

Source: Li et al. 2023 (arXiv 2301.07093), section 3.2 and equation 5.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class LayoutEncoderConfig:
    """The widths of labels and of tokens, and how finely edges are told."""

    label_dim: int
    token_dim: int
    hidden_dim: int = 512
    frequencies: int = 8  # of each edge, with powers of two from one to the finest


class LayoutEncoder(nn.Module):
    """Labels and edges of boxes to one token each; boxes that are not there have a token of their
    own.
    """

    def __init__(self, config: LayoutEncoderConfig):
        super().__init__()
        self.config = config
        features = 8 * config.frequencies  # sine and cosine of four edges
        self.linear_1 = nn.Linear(config.label_dim + features, config.hidden_dim)
        self.linear_2 = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.linear_3 = nn.Linear(config.hidden_dim, config.token_dim)
        self.null = nn.Parameter(torch.zeros(config.token_dim))

    def forward(
        self,
        labels: Float[Tensor, "b n e"],
        edges: Float[Tensor, "b n 4"],
        there: Bool[Tensor, "b n"],
    ) -> Float[Tensor, "b n d"]:
        """Edges are parts of the picture, from 0 to 1."""
        steps = torch.arange(self.config.frequencies, device=edges.device)
        angles = edges[..., None] * (math.pi * 2.0**steps)
        features = torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
        x = torch.cat([labels, features.to(labels)], -1)
        x = F.silu(self.linear_1(x))
        x = F.silu(self.linear_2(x))
        return torch.where(there[..., None], self.linear_3(x), self.null.to(x.dtype))
