"""U-Nets and autoencoders computed by OpenVINO."""

from collections.abc import Sequence
from typing import TypeVar, cast

from jaxtyping import Float
from torch import Tensor, nn

from safelight.engine.compiled import Compiled
from safelight.engine.store import Store
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.unet import UNet
from safelight.nn.substitute import substituted
from safelight.types import Conditioning

A = TypeVar("A", bound=AnyAutoencoder)
_Layout = tuple[str, ...]  # the field of a conditioning that each of some tensors is of


class CompiledUNet:
    """A `Network` that gives what a U-Net gives, up to rounding, on the CPU and in float32.

    The embedding of the time and of what is beside x is computed by `ready`, which may remember it
    (`models.prepared`); all else by OpenVINO, see `Compiled`.
    """

    def __init__(self, unet: UNet, ready: UNet, store: Store | None):
        self._unet = substituted(unet, {})  # whose layers nobody else swaps
        self._ready = ready
        self._store = store
        self._trunks: dict[_Layout, Compiled] = {}

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """As the U-Net; errors as `Compiled`, too."""
        layout, parts = _parts(cond)
        trunk = self._trunks.get(layout)
        if trunk is None:
            trunk = self._trunks[layout] = Compiled(_Trunk(self._unet, layout), self._store)
        return trunk(x, self._ready.embed(t, cond), *parts)


class _Trunk(nn.Module):
    """A U-Net after its embedding, as a module of tensors alone."""

    def __init__(self, unet: UNet, layout: _Layout):
        super().__init__()
        self.unet = unet
        self.layout = layout

    def forward(self, x: Tensor, emb: Tensor, *parts: Tensor) -> Tensor:
        """(b, c, h, w), (b, d) and the conditioning's parts to (b, c_out, h, w)."""
        return self.unet.from_embedding(x, emb, _conditioning(self.layout, parts))


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


def compiled_autoencoder(autoencoder: A, store: Store | None) -> A:
    """A second autoencoder whose encoder and decoder OpenVINO computes, see `Compiled`; the first
    stays as it is.
    """
    layers = {
        name: Compiled(layer, store)
        for name, layer in (("encoder", autoencoder.encoder), ("decoder", autoencoder.decoder))
        if layer is not None
    }
    return substituted(autoencoder, cast(dict[str, nn.Module], layers))
