"""U-Nets and autoencoders computed by an engine."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.unet import UNet
from safelight.models.unet_encoder import Emb
from safelight.nn.blocks import Picture
from safelight.nn.kept import Kept
from safelight.nn.substitute import substituted
from safelight.types import Conditioning

A = TypeVar("A", bound=AnyAutoencoder)
Wrap: TypeAlias = Callable[[nn.Module], nn.Module]
"""From a module of tensors alone to one that gives the same up to rounding."""

_Layout: TypeAlias = tuple[str, ...]  # what each of some tensors is

_REMEMBERED = 8  # contexts whose pooled vectors are kept: of prompts that take turns in a picture


class CompiledUNet:
    """A `Network` that gives what a U-Net gives, up to rounding, by modules of an engine: what
    `wrap` makes of modules that take and give tensors alone.

    What embeds the time is in each of these: torch's threads, once woken, stand in the way of
    another engine's. The pooled context is remembered instead: OpenVINO 2026.4 crashes as it
    compiles a graph with both.
    """

    def __init__(self, unet: UNet, wrap: Wrap):
        self._unet = substituted(unet, {})  # whose layers nobody else swaps
        pool = unet.context_embedding
        self._pool = None if pool is None else Kept(pool, _REMEMBERED)
        self._wrap = wrap
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
            "context": cond.context if attends else None,
            "vector": cond.vector,
            "concat": cond.concat,
        }
        named = [(name, part) for name, part in given.items() if part is not None]
        named += [("residuals", part) for part in cond.residuals]
        named += [("features", part) for part in cond.features]
        return tuple(name for name, _ in named), [part for _, part in named]

    def _pooled(self, cond: Conditioning) -> Emb | None:
        if self._pool is None or cond.context is None:
            return self._unet.pool(cond)  # nothing, or an error
        return self._pool(cond.context)

    def _trunk(self, kind: "type[_Whole | _WithDeep | _FromDeep]", layout: _Layout) -> nn.Module:
        if (kind, layout) not in self._trunks:
            self._trunks[kind, layout] = self._wrap(kind(self._unet, layout))
        return self._trunks[kind, layout]


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
    pooled, context, vector, concat = (
        found[name][0] if name in found else None
        for name in ("pooled", "context", "vector", "concat")
    )
    emb = unet.embed_features(features, vector)
    cond = Conditioning(
        context=context,
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
