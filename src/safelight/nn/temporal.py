"""Layers that look along the frames of clips, and what they give mixed with a picture's layers.

Frames fold into the batch, clip after clip: x is (b f, c, h, w). What a clip has in common keeps
the frames as an axis of its own, from which these layers know how many there are.
Source: Blattmann et al. 2023 (arXiv 2304.08818), section 3.1, in the shapes of Stable Video
Diffusion (arXiv 2311.15127); parameter names as in diffusers'
`UNetSpatioTemporalConditionModel`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from safelight.nn.attention import Attention, FeedForward, SpatialTransformer, Tokens
from safelight.nn.blocks import Picture, ResBlock
from safelight.nn.embeddings import sinusoidal

FrameTokens = Float[Tensor, "b f n d"]


class TimeMixer(nn.Module):
    """`a * spatial + (1 - a) * temporal` with a learned a between 0 and 1 (arXiv 2304.08818,
    section 3.1): `sigmoid(mix_factor)`, or with `switched` one less that.
    """

    def __init__(self, mix_factor: float = 0.5, *, switched: bool = False):
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([mix_factor]))
        self.switched = switched

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Two tensors of one shape to their mixture, which is `spatial` to the bit where they are
        the same.
        """
        factor = torch.sigmoid(self.mix_factor.float())
        temporal_part = factor if self.switched else 1 - factor
        return spatial + temporal_part.to(spatial.dtype) * (temporal - spatial)


class TemporalResBlock(nn.Module):
    """A residual block whose convolutions span three frames and one place each; `narrow` times
    narrower between the two, as far as that many groups go.
    """

    def __init__(
        self,
        channels: int,
        *,
        groups: int,
        eps: float,
        emb_dim: int | None = None,
        narrow: int = 1,
    ):
        super().__init__()
        inner = -(-channels // (narrow * groups)) * groups
        self.norm1 = nn.GroupNorm(groups, channels, eps)
        self.conv1 = FrameConv(channels, inner)
        self.time_emb_proj = nn.Linear(emb_dim, inner) if emb_dim else None
        self.norm2 = nn.GroupNorm(groups, inner, eps)
        self.conv2 = FrameConv(inner, channels)

    def forward(
        self, x: Float[Tensor, "b c f n"], emb: Float[Tensor, "b f d"] | None = None
    ) -> Float[Tensor, "b c f n"]:
        """Frames of n places each, and an embedding of each frame, to the same shape."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None and emb is not None:
            h = h + rearrange(self.time_emb_proj(F.silu(emb)), "b f c -> b c f 1")
        return x + self.conv2(F.silu(self.norm2(h)))


class FrameConv(nn.Conv3d):
    """A convolution over three neighbouring frames, place by place; beyond the ends are zeros."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, input: Float[Tensor, "b c f n"]) -> Float[Tensor, "b c_out f n"]:
        """Frames of n places each to the same, in a picture's convolution, the faster one."""
        return F.conv2d(input, self.weight[..., 0], self.bias, padding=(1, 0))


class SpatioTemporalResBlock(nn.Module):
    """A picture's residual block, and one along the frames after it, mixed.

    `chunk` is how many frames at a time go through the first; None for all.
    """

    def __init__(
        self,
        spatial: ResBlock,
        mixer: TimeMixer,
        *,
        emb_dim: int | None,
        eps: float | None = None,
        narrow: int = 1,
    ):
        super().__init__()
        self.chunk: int | None = None
        self.spatial_res_block = spatial
        norm = spatial.norm2
        self.temporal_res_block = TemporalResBlock(
            norm.num_channels,
            groups=norm.num_groups,
            eps=eps or norm.eps,
            emb_dim=emb_dim,
            narrow=narrow,
        )
        self.time_mixer = mixer

    def forward(self, x: Picture, emb: Float[Tensor, "*rows d"] | None = None) -> Picture:
        """Frames (b f, c, h, w) and their embeddings (b, f, d) to (b f, out, h, w).

        Without an embedding all frames are of one clip, as the temporal decoder has it; an
        embedding (b, d) is that of pictures, which go through the picture's block alone.
        """
        if emb is None:
            return self._mixed(in_chunks(self.spatial_res_block, self.chunk, x), len(x), None)
        if emb.ndim == 2:
            return self.spatial_res_block(x, emb)
        spatial = in_chunks(self.spatial_res_block, self.chunk, x, emb.flatten(0, 1))
        return self._mixed(spatial, emb.shape[1], emb)

    def _mixed(self, x: Picture, frames: int, emb: Tensor | None) -> Picture:
        spatial = rearrange(x, "(b f) c h w -> b c f (h w)", f=frames)
        out = self.time_mixer(spatial, self.temporal_res_block(spatial, emb))
        return rearrange(out, "b c f (h w) -> (b f) c h w", h=x.shape[-2])


class TemporalTransformerBlock(nn.Module):
    """Feed-forward, attention along the frames of each place, attention to the context,
    feed-forward; each after a norm and with a skip. With `narrow` it has so many times fewer heads,
    at least one, and feed-forwards so many times narrower inside.
    """

    def __init__(self, dim: int, heads: int, context_dim: int, narrow: int = 1):
        super().__init__()
        fewer = max(heads // narrow, 1)
        inner, hidden = dim // heads * fewer, -(-dim // narrow)
        self.norm_in = nn.LayerNorm(dim)
        self.ff_in = FeedForward(dim, hidden)
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, fewer, inner=inner)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, fewer, context_dim, inner=inner)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim, hidden)

    def forward(
        self, x: FrameTokens, context: Float[Tensor, "b m e"], chunk: int | None = None
    ) -> FrameTokens:
        """Clips (b, f, n, d), attending to (b, m, e), to the same; n places at a time in `chunk`s.

        Places do not see each other here, so that chunks change nothing.
        """
        if chunk is not None and x.shape[2] > chunk:
            starts = range(0, x.shape[2], chunk)
            parts = [self(x[:, :, start : start + chunk], context) for start in starts]
            return torch.cat(parts, dim=2)
        frames, places = x.shape[1:3]
        x = rearrange(x, "b f n d -> (b n) f d")
        x = x + self.ff_in(self.norm_in(x))
        x = x + self.attn1(self.norm1(x))
        # a place's context is the clip's: all queries of a clip together look at it once
        x = rearrange(x, "(b n) f d -> b (n f) d", n=places)
        x = x + self.attn2(self.norm2(x), context)
        x = x + self.ff(self.norm3(x))
        return rearrange(x, "b (n f) d -> b f n d", f=frames)


class SpatioTemporalTransformer(nn.Module):
    """A picture's transformer, each of whose blocks is followed by one along the frames, mixed.

    The temporal blocks are told which frame is which; they look at the context of a clip's first.
    """

    def __init__(
        self, spatial: SpatialTransformer, mixer: TimeMixer, context_dim: int, narrow: int = 1
    ):
        super().__init__()
        self.chunk: int | None = None
        self.norm, self.proj_in, self.proj_out = spatial.norm, spatial.proj_in, spatial.proj_out
        self.transformer_blocks = spatial.transformer_blocks
        channels = self.norm.num_channels
        heads = spatial.heads
        self.temporal_transformer_blocks = nn.ModuleList(
            TemporalTransformerBlock(channels, heads, context_dim, narrow)
            for _ in self.transformer_blocks
        )
        self.time_pos_embed = FramePositions(channels, narrow)
        self.time_mixer = mixer

    def forward(self, x: Picture, context: Float[Tensor, "*rows m e"]) -> Picture:
        """Frames (b f, c, h, w), attending to (b, f, m, e), to (b f, c, h, w).

        A context (b, m, e) is that of pictures, which go through the picture's blocks alone.
        """
        still = context.ndim == 3
        rows = context if still else context.flatten(0, 1)
        places = x.shape[-2] * x.shape[-1]
        tokens = in_chunks(self._tokens, self.chunk, x)
        for block, temporal in zip(
            self.transformer_blocks, self.temporal_transformer_blocks, strict=True
        ):
            tokens = in_chunks(block, self.chunk, tokens, rows)
            if still:
                continue
            frames = context.shape[1]
            each = None if self.chunk is None else -(-self.chunk * places // frames)
            spatial = rearrange(tokens, "(b f) n d -> b f n d", f=frames)
            moved = spatial + self.time_pos_embed(frames)[:, None].to(spatial)
            moved = temporal(moved, context[:, 0], each)
            tokens = self.time_mixer(spatial, moved).flatten(0, 1)
        tokens = in_chunks(self.proj_out, self.chunk, tokens)
        return x + rearrange(tokens, "b (h w) c -> b c h w", h=x.shape[-2])

    def _tokens(self, x: Picture) -> Tokens:
        return self.proj_in(rearrange(self.norm(x), "b c h w -> b (h w) c"))


class FramePositions(nn.Module):
    """An embedding of each frame's place in its clip, of features of its number by two layers."""

    def __init__(self, channels: int, narrow: int = 1):
        super().__init__()
        self.linear_1 = nn.Linear(channels, channels * 4 // narrow)
        self.linear_2 = nn.Linear(channels * 4 // narrow, channels)

    def forward(self, frames: int) -> Float[Tensor, "f d"]:
        """The embeddings of frames 0 to `frames` - 1."""
        layer = self.linear_1
        numbers = torch.arange(frames, device=layer.bias.device, dtype=torch.float32)
        features = sinusoidal(numbers, layer.in_features)
        features = features.to(layer.bias.dtype)  # the weight may be held in another, `nn.stored`
        return self.linear_2(F.silu(self.linear_1(features)))


def zero_temporal(layer: nn.Module) -> None:
    """Zeroes the last layer of each temporal branch in `layer`: what is mixed is then the same, and
    frames come out as pictures do, to the bit.
    """
    for module in layer.modules():
        if isinstance(module, TemporalResBlock):
            ends: list[nn.Module] = [module.conv2]
        elif isinstance(module, TemporalTransformerBlock):
            looks = [module.attn1.to_out, module.attn2.to_out]
            ends = [module.ff_in.proj_out, *looks, module.ff.proj_out]
        elif isinstance(module, FramePositions):
            ends = [module.linear_2]
        else:
            continue
        for end in ends:
            zero(end)


def zero(layer: nn.Module) -> None:
    """Zeroes all of a layer."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def in_chunks(
    layer: Callable[..., Tensor], chunk: int | None, x: Tensor, *beside: Tensor
) -> Tensor:
    """`layer(x, *beside)`, a `chunk` of rows at a time, which bounds the memory that it takes."""
    if chunk is None or len(x) <= chunk:
        return layer(x, *beside)
    parts = [
        layer(*(tensor[start : start + chunk] for tensor in (x, *beside)))
        for start in range(0, len(x), chunk)
    ]
    return torch.cat(parts)
