"""Sinusoidal features of a number and the two-layer embeddings built on them."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.attention import attend


def sinusoidal(
    t: Float[Tensor, " n"], dim: int, *, flip_sin_to_cos: bool = True, freq_shift: float = 0.0
) -> Float[Tensor, "n dim"]:
    """Sine and cosine features of `t` at `dim / 2` geometric frequencies from 1 to 1/10000.

    `flip_sin_to_cos` puts the cosines first, `freq_shift` is subtracted from the number of
    frequencies in the exponent's denominator; both are keys of diffusers' configurations. Computed
    in float32.
    Source: Vaswani et al. 2017, section 3.5.
    """
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=t.device) / (half - freq_shift)
    angles = t.float()[:, None] * torch.exp(-math.log(10_000) * exponent)
    parts = (angles.cos(), angles.sin()) if flip_sin_to_cos else (angles.sin(), angles.cos())
    return F.pad(torch.cat(parts, dim=-1), (0, dim % 2))


class Embedding(nn.Module):
    """Two linear layers with SiLU between, (b, v) to (b, d); `cond_dim` adds a projected second
    input.
    """

    def __init__(self, in_dim: int, out_dim: int, cond_dim: int | None = None):
        super().__init__()
        self.linear_1 = nn.Linear(in_dim, out_dim)
        self.linear_2 = nn.Linear(out_dim, out_dim)
        self.cond_proj = nn.Linear(cond_dim, in_dim, bias=False) if cond_dim else None

    def forward(
        self, features: Float[Tensor, "b v"], cond: Float[Tensor, "b w"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Embeds `features` plus the projected `cond` (LCM's guidance, arXiv 2310.04378)."""
        if self.cond_proj is not None and cond is not None:
            features = features + self.cond_proj(cond)
        return self.linear_2(F.silu(self.linear_1(features)))


class ContextEmbedding(nn.Module):
    """One vector of all tokens, (b, n, context_dim) to (b, dim), by attention from their mean.

    It lets every residual block hear the prompt, those of levels without attention too. Source:
    DeepFloyd IF's `AttentionPooling`, after the attention pool of Radford et al. 2021, section 2.3;
    keys as in diffusers' `TextTimeEmbedding`.
    """

    def __init__(self, context_dim: int, dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(context_dim)
        self.pool = _AttentionPool(context_dim, heads)
        self.proj = nn.Linear(context_dim, dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, context: Float[Tensor, "b n c"]) -> Float[Tensor, "b d"]:
        """Pools the tokens, padding included."""
        return self.norm2(self.proj(self.pool(self.norm1(context))))


class _AttentionPool(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        drawn = nn.init.normal_(torch.empty(1, dim), std=dim**-0.5)  # which reading leaves out
        self.positional_embedding = nn.Parameter(drawn)
        self.k_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b c"]:
        mean = x.mean(dim=1, keepdim=True) + self.positional_embedding
        x = torch.cat([mean, x], dim=1)  # (b, n + 1, c)
        pooled = attend(self.q_proj(mean), self.k_proj(x), self.v_proj(x), self.heads)
        return pooled[:, 0]


class OneHotEmbedding(nn.Module):
    """A table of class vectors read by one-hot rows (b, classes), so that a zero row means no
    class.
    """

    def __init__(self, classes: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(classes, dim)))

    def forward(self, one_hot: Float[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        """The rows of the table that `one_hot` selects or mixes."""
        return one_hot @ self.weight
