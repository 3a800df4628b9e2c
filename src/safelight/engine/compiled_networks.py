"""U-Nets and autoencoders computed by an engine."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar, cast

from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.unet import UNet
from safelight.models.unet_encoder import Emb
from safelight.nn.blocks import Picture
from safelight.nn.substitute import substituted
from safelight.types import Conditioning

A = TypeVar("A", bound=AnyAutoencoder)
Wrap: TypeAlias = Callable[[nn.Module], nn.Module]
"""From a module of tensors alone to one that gives the same up to rounding."""

_Layout: TypeAlias = tuple[str, ...]  # the field of a conditioning that each of some tensors is of


class CompiledUNet:
    """A `Network` that gives what a U-Net gives, up to rounding, by modules of an engine.

    The embedding of the time and of what is beside x is computed by `ready`, which may remember it
    (`models.prepared`); all else by what `wrap` makes of modules that take and give tensors alone.
    """

    def __init__(self, unet: UNet, ready: UNet, wrap: Wrap):
        self._unet = substituted(unet, {})  # whose layers nobody else swaps
        self._ready = ready
        self._wrap = wrap
        self._trunks: dict[tuple[type[nn.Module], _Layout], nn.Module] = {}

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """As the U-Net; errors as the engine, too."""
        layout, parts = _parts(cond)
        return self._trunk(_Whole, layout)(x, self._ready.embed(t, cond), *parts)

    def embed(self, t: Float[Tensor, " b"], cond: Conditioning) -> Emb:
        """As the U-Net."""
        return self._ready.embed(t, cond)

    def with_deep(
        self, x: Float[Tensor, "b c h w"], emb: Emb, cond: Conditioning
    ) -> tuple[Float[Tensor, "b c_out h w"], Picture]:
        """As the U-Net; errors as the engine, too."""
        layout, parts = _parts(cond)
        return self._trunk(_WithDeep, layout)(x, emb, *parts)

    def from_deep(
        self, x: Float[Tensor, "b c h w"], emb: Emb, cond: Conditioning, deep: Picture
    ) -> Float[Tensor, "b c_out h w"]:
        """As the U-Net; errors as the engine, too."""
        context = cond.context if self._unet.config.attention[0] else None
        needed = Conditioning(context, concat=cond.concat, residuals=cond.residuals[:1])
        layout, parts = _parts(needed)
        return self._trunk(_FromDeep, layout)(x, emb, deep, *parts)

    def _trunk(self, kind: "type[_Whole | _WithDeep | _FromDeep]", layout: _Layout) -> nn.Module:
        if (kind, layout) not in self._trunks:
            self._trunks[kind, layout] = self._wrap(kind(self._unet, layout))
        return self._trunks[kind, layout]


class _Whole(nn.Module):
    """A U-Net after its embedding, as a module of tensors alone."""

    def __init__(self, unet: UNet, layout: _Layout):
        super().__init__()
        self.unet, self.layout = unet, layout

    def forward(self, x: Tensor, emb: Tensor, *parts: Tensor) -> Tensor:
        """(b, c, h, w), (b, d) and the conditioning's parts to (b, c_out, h, w)."""
        return self.unet.from_embedding(x, emb, _conditioning(self.layout, parts))


class _WithDeep(nn.Module):
    """The same, with what `_FromDeep` takes."""

    def __init__(self, unet: UNet, layout: _Layout):
        super().__init__()
        self.unet, self.layout = unet, layout

    def forward(self, x: Tensor, emb: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        """(b, c, h, w), (b, d) and the conditioning's parts to (b, c_out, h, w), (b, k, h, w)."""
        return self.unet.with_deep(x, emb, _conditioning(self.layout, parts))


class _FromDeep(nn.Module):
    """The first and the last layers of a U-Net after its embedding."""

    def __init__(self, unet: UNet, layout: _Layout):
        super().__init__()
        self.unet, self.layout = unet, layout

    def forward(self, x: Tensor, emb: Tensor, deep: Tensor, *parts: Tensor) -> Tensor:
        """(b, c, h, w), (b, d), (b, k, h, w) and the conditioning's parts to (b, c_out, h, w)."""
        return self.unet.from_deep(x, emb, _conditioning(self.layout, parts), deep)


_ONE = ("context", "concat")
_MORE = ("residuals", "features")


def _parts(cond: Conditioning) -> tuple[_Layout, list[Tensor]]:
    """The tensors that a U-Net takes after its embedding, each with its field."""
    layout: list[str] = []
    parts: list[Tensor] = []
    for name in _ONE:
        part = cast(Tensor | None, getattr(cond, name))
        if part is not None:
            layout.append(name)
            parts.append(part)
    for name in _MORE:
        for part in cast(tuple[Tensor, ...], getattr(cond, name)):
            layout.append(name)
            parts.append(part)
    return tuple(layout), parts


def _conditioning(layout: _Layout, parts: Sequence[Tensor]) -> Conditioning:
    """The inverse of `_parts`."""
    found: dict[str, list[Tensor]] = {name: [] for name in (*_ONE, *_MORE)}
    for name, part in zip(layout, parts, strict=True):
        found[name].append(part)
    context, concat = (found[name][0] if found[name] else None for name in _ONE)
    residuals, features = (tuple(found[name]) for name in _MORE)
    return Conditioning(context=context, concat=concat, residuals=residuals, features=features)


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
