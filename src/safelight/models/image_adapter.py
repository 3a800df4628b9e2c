"""What lets a picture speak beside the prompt: IP-Adapter.

Source: Ye et al. 2023 (arXiv 2308.06721), section 3; the resampler of its "plus" files after
Alayrac et al. 2022 (arXiv 2204.14198), section 3.1. Parameter names are those of the public files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.unet import UNet
from safelight.nn.attention import attend
from safelight.nn.decoupled import (
    DecoupledAttention,
    WithoutLast,
    context_readers,
    cross_attentions,
)
from safelight.nn.substitute import substituted
from safelight.types import Conditioning

ImageAdapterKind = Literal["plain", "plus", "full"]
_HEAD = 64  # the width of a head of the resampler, in every public file


@dataclass(frozen=True)
class ImageAdapterConfig:
    """The shape of an adapter.

    Attributes:
        kind: what brings a picture to tokens: "plain" one layer over the vector of the whole
            picture; "plus" a resampler, "full" two layers, over the tokens of an image tower.
        embedding_dim: of that vector, or of these tokens.
        context_dim: of the U-Net's context.
        widths: of the U-Net's layers that attend to it, in the order of `cross_attentions`.
        tokens: that a picture becomes; of "full" as many as the tower has.
        hidden_dim, depth, heads: of the resampler.
    """

    embedding_dim: int
    context_dim: int
    widths: tuple[int, ...]
    kind: ImageAdapterKind = "plain"
    tokens: int = 4
    hidden_dim: int = 768
    depth: int = 4
    heads: int = 12


class ImageAdapter(nn.Module):
    """Embeddings of pictures to tokens, and what each layer makes of these."""

    def __init__(self, config: ImageAdapterConfig):
        super().__init__()
        self.config = config
        self.image_proj = _projection(config)
        self.ip_adapter = nn.ModuleDict(
            {
                str(2 * place + 1): _KeysAndValues(config.context_dim, width)
                for place, width in enumerate(config.widths)
            }
        )

    def forward(self, embeddings: Float[Tensor, "b ..."]) -> Float[Tensor, "b n d"]:
        """Vectors (b, e), or the tokens of an image tower (b, m, e), to tokens of the context."""
        return self.image_proj(embeddings)

    @staticmethod
    def for_unet(unet: UNet, config: ImageAdapterConfig) -> "ImageAdapter":
        """A fresh adapter for a U-Net, whose layers' keys and values it begins with; the widths are
        those of the U-Net.

        Raises `ValueError` for a U-Net without context.
        """
        layers = cross_attentions(unet)
        width = unet.config.cross_attention_dim
        if width is None or not layers:
            raise ValueError("This U-Net attends to no context.")
        widths = tuple(layer.to_k.weight.shape[0] for _, layer in layers)
        adapter = ImageAdapter(replace(config, context_dim=width, widths=widths))
        for pair, (_, layer) in zip(adapter.ip_adapter.values(), layers, strict=True):
            assert isinstance(pair, _KeysAndValues)
            pair.to_k_ip.load_state_dict(layer.to_k.state_dict())
            pair.to_v_ip.load_state_dict(layer.to_v.state_dict())
        return adapter


class Pictured:
    """A U-Net that attends to `cond.pictures` beside its context; itself a `Network`, which shares
    all weights with the U-Net and the adapter.

    Each picture has a weight; 0 is as if it were not there.

    Raises `ValueError` for an adapter of another U-Net's shape.
    """

    def __init__(
        self,
        unet: UNet,
        adapter: ImageAdapter,
        weights: Sequence[float],
        tokens: int | None = None,
    ):
        """`tokens` are those of a picture; None as the adapter's configuration says."""
        check_fit(unet, adapter.config)
        self.count = len(weights)
        tokens = tokens or adapter.config.tokens
        layers: dict[str, nn.Module] = {
            path: WithoutLast(module, self.count * tokens) for path, module in context_readers(unet)
        }
        pairs = adapter.ip_adapter.values()
        for (path, layer), pair in zip(cross_attentions(unet), pairs, strict=True):
            assert isinstance(pair, _KeysAndValues)
            layers[path] = DecoupledAttention(layer, pair.to_k_ip, pair.to_v_ip, tokens, weights)
        self.unet = substituted(unet, layers)

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """The U-Net's output; `ValueError` unless there are as many pictures as weights."""
        if len(cond.pictures) != self.count or cond.context is None:
            raise ValueError(f"Expected a context and {self.count} pictures beside it.")
        pictures = [tokens.to(cond.context) for tokens in cond.pictures]
        context = torch.cat([cond.context, *pictures], dim=1)
        return self.unet(x, t, replace(cond, context=context, pictures=()))


def check_fit(unet: UNet, config: ImageAdapterConfig) -> None:
    """Raises `ValueError` for an adapter of another U-Net's shape."""
    widths = tuple(layer.to_k.weight.shape[0] for _, layer in cross_attentions(unet))
    ours = (unet.config.cross_attention_dim, widths)
    if ours != (config.context_dim, config.widths):
        theirs, these = (
            f"{len(each)} layers of cross-attention ({', '.join(map(str, sorted(set(each))))}) to "
            f"a context of width {width}"
            for width, each in ((config.context_dim, config.widths), ours)
        )
        raise ValueError(f"The adapter is for {theirs}; this U-Net has {these}.")


class _KeysAndValues(nn.Module):
    def __init__(self, context_dim: int, width: int):
        super().__init__()
        self.to_k_ip = nn.Linear(context_dim, width, bias=False)
        self.to_v_ip = nn.Linear(context_dim, width, bias=False)


def _projection(config: ImageAdapterConfig) -> nn.Module:
    if config.kind == "plus":
        return _Resampler(config)
    return _Whole(config) if config.kind == "plain" else _TwoLayers(config)


class _Whole(nn.Module):
    """One vector to several tokens."""

    def __init__(self, config: ImageAdapterConfig):
        super().__init__()
        self.tokens = config.tokens
        self.proj = nn.Linear(config.embedding_dim, config.tokens * config.context_dim)
        self.norm = nn.LayerNorm(config.context_dim)

    def forward(self, embeddings: Float[Tensor, "b e"]) -> Float[Tensor, "b n d"]:
        rows = rearrange(self.proj(embeddings), "b (n d) -> b n d", n=self.tokens)
        return self.norm(rows)


class _TwoLayers(nn.Module):
    """Each token of an image tower to one of the context."""

    def __init__(self, config: ImageAdapterConfig):
        super().__init__()
        width = config.embedding_dim
        self.proj = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, config.context_dim),
            nn.LayerNorm(config.context_dim),
        )

    def forward(self, embeddings: Float[Tensor, "b n e"]) -> Float[Tensor, "b n d"]:
        return self.proj(embeddings)


class _Resampler(nn.Module):
    """Learned queries that look at the tokens of an image tower, layer after layer."""

    def __init__(self, config: ImageAdapterConfig):
        super().__init__()
        width = config.hidden_dim
        drawn = nn.init.normal_(torch.empty(1, config.tokens, width), std=width**-0.5)
        self.latents = nn.Parameter(drawn)
        self.proj_in = nn.Linear(config.embedding_dim, width)
        self.proj_out = nn.Linear(width, config.context_dim)
        self.norm_out = nn.LayerNorm(config.context_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([_LatentAttention(width, config.heads), _feed_forward(width)])
            for _ in range(config.depth)
        )

    def forward(self, embeddings: Float[Tensor, "b m e"]) -> Float[Tensor, "b n d"]:
        x = self.proj_in(embeddings)
        latents = self.latents.expand(len(x), -1, -1)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            look, feed = layer
            latents = latents + look(x, latents)
            latents = latents + feed(latents)
        return self.norm_out(self.proj_out(latents))


class _LatentAttention(nn.Module):
    """Attention of the queries to tokens and queries."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, inner = heads, heads * _HEAD
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, inner * 2, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "b m d"], latents: Float[Tensor, "b n d"]
    ) -> Float[Tensor, "b n d"]:
        latents = self.norm2(latents)
        k, v = self.to_kv(torch.cat([self.norm1(x), latents], dim=1)).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(latents), k, v, self.heads))


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, dim * 4, bias=False),
        nn.GELU(),
        nn.Linear(dim * 4, dim, bias=False),
    )
