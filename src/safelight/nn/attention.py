"""Multi-head attention, gated feed-forward, and the transformers that hold them over pictures."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Tokens = Float[Tensor, "b n d"]


class Attention(nn.Module):
    """Dot-product attention of `x` over `context`, or over itself (Vaswani et al. 2017, eq. 1).

    `upcast` attends in float32, under autocast too, which Stable Diffusion 2.1 needs in half
    precision: its products of queries and keys overflow float16. `inner` is the width in which it
    attends, where that is another than `dim`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        context_dim: int | None = None,
        *,
        upcast: bool = False,
        inner: int | None = None,
    ):
        super().__init__()
        inner = inner or dim
        self.heads = heads
        self.upcast = upcast
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim or dim, inner, bias=False)
        self.to_out = nn.Linear(inner, dim)

    def forward(self, x: Tokens, context: Float[Tensor, "b m e"] | None = None) -> Tokens:
        """(b, n, d), attending to (b, m, e), to (b, n, d)."""
        context = x if context is None else context
        return self.to_out(self.attend(self.to_q(x), self.to_k(context), self.to_v(context)))

    def attend(self, q: Tokens, k: Float[Tensor, "b m d"], v: Float[Tensor, "b m d"]) -> Tokens:
        """Attention of projected tokens, in the precision that the layer asks for."""
        if not self.upcast:
            return attend(q, k, v, self.heads)
        with torch.autocast(q.device.type, enabled=False):
            attended = attend(q.float(), k.float(), v.float(), self.heads)
        return attended.to(v.dtype)


class PictureAttention(nn.Module):
    """Self-attention over the pixels of a picture with a norm and a skip: the autoencoders', and
    that of U-Nets without context.
    """

    def __init__(self, channels: int, *, groups: int, eps: float, heads: int = 1):
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(groups, channels, eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w) to the same."""
        tokens = rearrange(self.group_norm(x), "b c h w -> b (h w) c")
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        out = self.to_out(attend(q, k, v, self.heads))
        return x + rearrange(out, "b (h w) c -> b c h w", h=x.shape[-2])


def attend(
    q: Tokens,
    k: Float[Tensor, "b m d"],
    v: Float[Tensor, "b m d"],
    heads: int,
    *,
    causal: bool = False,
) -> Tokens:
    """Attention in `heads` equal slices of the width; `causal` hides the tokens that come later."""
    dtype = v.dtype
    if dtype == torch.bfloat16 and q.device.type == "cpu" and torch.is_grad_enabled():
        # float32's backward pass is 3 to 5 times as fast there on 16 tokens, and slower on a few or
        # on hundreds by less (benchmarks/attention_backward.py)
        q, k, v = q.float(), k.float(), v.float()
    q, k, v = (rearrange(tokens, "b n (h d) -> b h n d", h=heads) for tokens in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return rearrange(out, "b h n d -> b n (h d)").to(dtype)


class FeedForward(nn.Module):
    """GEGLU, four times as wide as `inner`, by default `dim` (Shazeer 2020, eq. 6)."""

    def __init__(self, dim: int, inner: int | None = None):
        super().__init__()
        inner = inner or dim
        self.proj_in = nn.Linear(dim, inner * 8)
        self.proj_out = nn.Linear(inner * 4, dim)

    def forward(self, x: Tokens) -> Tokens:
        """(b, n, d) to the same."""
        value, gate = self.proj_in(x).chunk(2, dim=-1)
        return self.proj_out(value * F.gelu(gate))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the context, feed-forward, each after a norm and with a
    skip.

    `self_context` lets the first attention look at the context too (the x4 upscaler's
    `only_cross_attention`).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        context_dim: int | None,
        *,
        self_context: bool = False,
        upcast: bool = False,
    ):
        super().__init__()
        self.self_context = self_context
        first = context_dim if self_context else None
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, first, upcast=upcast)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, context_dim, upcast=upcast)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x: Tokens, context: Float[Tensor, "b m e"] | None) -> Tokens:
        """(b, n, d), attending to (b, m, e), to (b, n, d)."""
        x = x + self.attn1(self.norm1(x), context if self.self_context else None)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a picture, between two projections, with a skip.

    `linear` projects tokens by a linear layer (SD 2.x, XL), otherwise pixels by a 1x1 convolution
    (SD 1.x).
    Source: Rombach et al. 2022, section 3.3 and figure 3.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        layers: int,
        context_dim: int | None,
        *,
        groups: int,
        linear: bool,
        self_context: bool = False,
        upcast: bool = False,
    ):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels, 1e-6)
        project = nn.Linear if linear else _PointwiseConv
        self.proj_in = project(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context_dim, self_context=self_context, upcast=upcast)
            for _ in range(layers)
        )
        self.proj_out = project(channels, channels)

    def forward(
        self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b m e"] | None
    ) -> Float[Tensor, "b c h w"]:
        """(b, c, h, w), attending to (b, m, e), to (b, c, h, w)."""
        tokens = rearrange(self.norm(x), "b c h w -> b (h w) c")
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        tokens = self.proj_out(tokens)
        return x + rearrange(tokens, "b (h w) c -> b c h w", h=x.shape[-2])


class _PointwiseConv(nn.Linear):
    """A 1x1 convolution as the linear layer it is; its stored weight keeps the two kernel axes."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels)
        self.weight = nn.Parameter(self.weight.detach()[:, :, None, None].contiguous())

    def forward(self, input: Tokens) -> Tokens:
        return F.linear(input, self.weight[:, :, 0, 0], self.bias)
