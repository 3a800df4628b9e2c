"""U-Nets and autoencoders computed by an engine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TypeAlias, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.unet import UNet
from safelight.models.unet_encoder import Emb
from safelight.nn.attention import TransformerBlock
from safelight.nn.blocks import Picture
from safelight.nn.kept import Kept
from safelight.nn.substitute import substituted
from safelight.types import Conditioning

A = TypeVar("A", bound=AnyAutoencoder)
Wrap: TypeAlias = Callable[[nn.Module], nn.Module]
"""From a module of tensors alone to one that gives the same up to rounding."""

_Layout: TypeAlias = tuple[str, ...]  # what each of some tensors is

_REMEMBERED = 8  # contexts of which that is kept: of prompts that take turns in a picture
_MOST_KEPT = 4 * 2**20  # bytes of keys and values; more cost more room than they save time


class CompiledUNet:
    """A `Network` that gives what a U-Net gives, up to rounding, by modules of an engine: what
    `wrap` makes of modules that take and give tensors alone.

    What embeds the time is in each of these: torch's threads, once woken, stand in the way of
    another engine's. What sees the context alone is remembered: what is pooled of it, and its keys
    and values where they are not large.
    """

    def __init__(self, unet: UNet, wrap: Wrap):
        self._unet = substituted(unet, {})  # whose layers nobody else swaps
        self._projected = _KeysAndValues(self._unet)
        self._remembered = Kept(self._projected, _REMEMBERED)
        pool = unet.context_embedding
        self._pool = None if pool is None else Kept(pool, _REMEMBERED)
        self._wrap = wrap
        self._listening = substituted(self._unet, self._projected.slices())
        self._trunks: dict[tuple[type[nn.Module], _Layout], nn.Module] = {}

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """As the U-Net; errors as the engine, too."""
        layout, parts = self._parts(cond)
        return self._trunk(_Whole, layout)(x, self._unet.time_features(t), *parts)

    def embed(self, t: Float[Tensor, " b"], cond: Conditioning) -> Float[Tensor, "b d"]:
        """What the next two take: the features of the time, which they embed themselves."""
        return self._unet.time_features(t)

    def with_deep(
        self, x: Float[Tensor, "b c h w"], emb: Float[Tensor, "b d"], cond: Conditioning
    ) -> tuple[Float[Tensor, "b c_out h w"], Picture]:
        """As the U-Net; errors as the engine, too."""
        layout, parts = self._parts(cond)
        return self._trunk(_WithDeep, layout)(x, emb, *parts)

    def from_deep(
        self,
        x: Float[Tensor, "b c h w"],
        emb: Float[Tensor, "b d"],
        cond: Conditioning,
        deep: Picture,
    ) -> Float[Tensor, "b c_out h w"]:
        """As the U-Net; errors as the engine, too."""
        needed = replace(cond, residuals=cond.residuals[:1], features=())
        layout, parts = self._parts(needed, attends=self._unet.config.attention[0])
        return self._trunk(_FromDeep, layout)(x, emb, deep, *parts)

    def _parts(self, cond: Conditioning, *, attends: bool = True) -> tuple[_Layout, list[Tensor]]:
        """The tensors that the modules take after the time, each with its name: that of its field,
        or "pooled".
        """
        given = {
            "pooled": self._pooled(cond),
            **({} if cond.context is None or not attends else self._context(cond.context)),
            "vector": cond.vector,
            "concat": cond.concat,
        }
        named = [(name, part) for name, part in given.items() if part is not None]
        named += [("residuals", part) for part in cond.residuals]
        named += [("features", part) for part in cond.features]
        return tuple(name for name, _ in named), [part for _, part in named]

    def _context(self, context: Tensor) -> dict[str, Tensor]:
        if not 0 < self._projected.bytes_of(context) <= _MOST_KEPT:
            return {"context": context}
        return {"keys and values": self._remembered(context)}

    def _pooled(self, cond: Conditioning) -> Emb | None:
        if self._pool is None or cond.context is None:
            return self._unet.pool(cond)  # nothing, or an error
        return self._pool(cond.context)

    def _trunk(self, kind: "type[_Whole | _WithDeep | _FromDeep]", layout: _Layout) -> nn.Module:
        if (kind, layout) not in self._trunks:
            unet = self._listening if "keys and values" in layout else self._unet
            self._trunks[kind, layout] = self._wrap(kind(unet, layout))
        return self._trunks[kind, layout]


class _KeysAndValues(nn.Module):
    """Keys and values of a context, of every layer that attends to it, beside each other."""

    def __init__(self, unet: UNet):
        super().__init__()
        dim = unet.config.cross_attention_dim  # without which attention is to x itself
        blocks = cast(Iterator[tuple[str, nn.Module]], () if dim is None else unet.named_modules())
        attentions = [
            f"{path}.{name}"
            for path, block in blocks
            if isinstance(block, TransformerBlock)
            for name in (("attn1", "attn2") if block.self_context else ("attn2",))
        ]
        self.paths = [f"{path}.{name}" for path in attentions for name in ("to_k", "to_v")]
        self.layers = nn.ModuleList(map(unet.get_submodule, self.paths))
        token = unet.conv_in.weight.new_zeros(1, 1, dim or 0)
        with torch.inference_mode():
            self.widths = [layer(token).shape[-1] for layer in self.layers]

    def bytes_of(self, context: Tensor) -> int:
        """How many they are."""
        return context.shape[:-1].numel() * sum(self.widths) * context.element_size()

    def slices(self) -> dict[str, nn.Module]:
        """What in each layer's place takes its part of them, by the layer's path."""
        ends = list(accumulate(self.widths, initial=0))
        return {path: _Part(*pair) for path, pair in zip(self.paths, pairwise(ends), strict=True)}

    def forward(self, context: Float[Tensor, "b n d"]) -> Float[Tensor, "b n sum"]:
        """A context to keys and values."""
        return torch.cat([layer(context) for layer in self.layers], dim=-1)


class _Part(nn.Module):
    """Of each token some of its numbers."""

    def __init__(self, start: int, stop: int):
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n part"]:
        """(b, n, d) to (b, n, stop - start)."""
        return x[..., self.start : self.stop]


class _Whole(nn.Module):
    """A U-Net after the features of its time, as a module of tensors alone."""

    def __init__(self, unet: UNet, layout: _Layout):
        super().__init__()
        self.unet, self.layout = unet, layout

    def forward(self, x: Tensor, features: Tensor, *parts: Tensor) -> Tensor:
        """(b, c, h, w), (b, d) and the conditioning's parts to (b, c_out, h, w)."""
        emb, cond = _embedded(self.unet, features, self.layout, parts)
        return self.unet.from_embedding(x, emb, cond)


class _WithDeep(nn.Module):
    """The same, with what `_FromDeep` takes."""

    def __init__(self, unet: UNet, layout: _Layout):
        super().__init__()
        self.unet, self.layout = unet, layout

    def forward(self, x: Tensor, features: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c, h, w), (b, d) and the conditioning's parts to (b, c_out, h, w), (b, k, h, w)."""
        emb, cond = _embedded(self.unet, features, self.layout, parts)
        return self.unet.with_deep(x, emb, cond)


class _FromDeep(nn.Module):
    """The first and the last layers of a U-Net after the features of its time."""

    def __init__(self, unet: UNet, layout: _Layout):
        super().__init__()
        self.unet, self.layout = unet, layout

    def forward(self, x: Tensor, features: Tensor, deep: Tensor, *parts: Tensor) -> Tensor:
        """(b, c, h, w), (b, d), (b, k, h, w) and the conditioning's parts to (b, c_out, h, w)."""
        emb, cond = _embedded(self.unet, features, self.layout, parts)
        return self.unet.from_deep(x, emb, cond, deep)


def _embedded(
    unet: UNet, features: Tensor, layout: _Layout, parts: Sequence[Tensor]
) -> tuple[Emb, Conditioning]:
    """The embedding and the conditioning of the parts of a layout."""
    found: dict[str, list[Tensor]] = {}
    for name, part in zip(layout, parts, strict=True):
        found.setdefault(name, []).append(part)
    pooled, context, projected, vector, concat = (
        found[name][0] if name in found else None
        for name in ("pooled", "context", "keys and values", "vector", "concat")
    )
    emb = unet.embed_features(features, vector)
    cond = Conditioning(
        context=context if projected is None else projected,
        vector=vector,
        concat=concat,
        residuals=tuple(found.get("residuals", ())),
        features=tuple(found.get("features", ())),
    )
    return emb if pooled is None else emb + pooled, cond


def compiled_autoencoder(autoencoder: A, wrap: Wrap) -> A:
    """A second autoencoder with what `wrap` makes of its encoder and decoder; the first stays as it
    is.
    """
    layers = {
        name: wrap(layer)
        for name, layer in (("encoder", autoencoder.encoder), ("decoder", autoencoder.decoder))
        if layer is not None
    }
    return substituted(autoencoder, layers)
