"""AnimateDiff's motion module: a transformer along the frames, behind a picture's layers.

Source: Guo et al. 2023 (arXiv 2307.04725), section 4.2; parameter names as in diffusers'
`MotionAdapter`.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.attention import Attention, FeedForward, Tokens
from safelight.nn.blocks import Picture
from safelight.nn.temporal import in_chunks


class MotionModule(nn.Module):
    """Transformer blocks over the frames of each place, between two projections, with a skip.

    `max_frames` is how many frames it can tell apart.
    """

    def __init__(self, channels: int, heads: int, layers: int, *, groups: int, max_frames: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, 1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            _MotionBlock(channels, heads, max_frames) for _ in range(layers)
        )
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Picture, frames: int) -> Picture:
        """Clips of so many frames, (b f, c, h, w), to the same."""
        height = x.shape[-2]
        clips = self.norm(rearrange(x, "(b f) c h w -> b c f (h w)", f=frames))
        tokens = self.proj_in(rearrange(clips, "b c f n -> (b n) f c"))
        for block in self.transformer_blocks:
            tokens = block(tokens)
        tokens = rearrange(self.proj_out(tokens), "(b n) f c -> (b f) c n", b=len(clips))
        return x + rearrange(tokens, "r c (h w) -> r c h w", h=height)


class _MotionBlock(nn.Module):
    """Two attentions over the frames, which are told their places, and a feed-forward."""

    def __init__(self, dim: int, heads: int, max_frames: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, heads)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)
        self.max_frames = max_frames

    def forward(self, x: Tokens) -> Tokens:
        if x.shape[1] > self.max_frames:
            raise ValueError(
                f"This motion module knows {self.max_frames} frames, got {x.shape[1]}."
            )
        places = frame_places(x.shape[1], x.shape[2]).to(x)
        x = x + self.attn1(self.norm1(x) + places)
        x = x + self.attn2(self.norm2(x) + places)
        return x + self.ff(self.norm3(x))


def frame_places(frames: int, dim: int) -> Float[Tensor, "f d"]:
    """Sines and cosines of each frame's place, in turn (Vaswani et al. 2017, section 3.5)."""
    place = torch.arange(frames, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
    angles = place * frequency
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :dim]


class PerFrame(nn.Module):
    """A picture's layer over clips, and the motion module behind it, if there is one.

    `rows` is how many axes that which the layer takes beside x has where rows are pictures: 2 for
    an embedding, 3 for a context; with one more, that of the frames, rows are frames. `chunk` is
    how many frames at a time go through the picture's layer; None for all.
    """

    def __init__(self, base: nn.Module, rows: int, motion: MotionModule | None = None):
        super().__init__()
        self.chunk: int | None = None
        self.base = base
        self.rows = rows
        self.motion = motion

    def forward(self, x: Picture, beside: Float[Tensor, "*rows d"]) -> Picture:
        """Frames (b f, c, h, w), with (b, f, ..., d) beside them, to (b f, out, h, w)."""
        if beside.ndim == self.rows:
            return self.base(x, beside)
        x = in_chunks(self.base, self.chunk, x, beside.flatten(0, 1))
        return x if self.motion is None else self.motion(x, beside.shape[1])
