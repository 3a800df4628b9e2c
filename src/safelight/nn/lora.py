"""Adapters put into a network, around named layers, and taken out again.

`inject` swaps layers for `Adapted` ones around them, `eject` swaps them back, `fused` puts the
changes into the weights themselves for as long as it lasts. The base is never changed: it comes
back to the bit.
"""

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from safelight.nn.deltas import Addition, Decomposed, Layer, LowRank, as_delta
from safelight.nn.stored import StoredConv2d, StoredLinear, weight_of


class Adapted(nn.Module):
    """A layer with adapters around it, in the order in which they came, each at its own strength.

    The order matters where one is DoRA's, which scales what came before it.
    """

    def __init__(self, base: Layer):
        super().__init__()
        self.base = base
        self.deltas = nn.ModuleDict()
        self.strengths: dict[str, float] = {}

    @property
    def weight(self) -> Tensor:
        """The base's own weight."""
        return self.base.weight

    def whole_weight(self) -> Tensor:
        """The base's weight with every adapter in it, in float32; strength 0 is none at all."""
        base = weight_of(self.base)
        weight = base
        for name, delta in self.deltas.items():
            if self.strengths[name]:
                weight = as_delta(delta).applied(weight, base, self.strengths[name])
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """The output of the layer with its adapters."""
        active = {name: delta for name, delta in self.deltas.items() if self.strengths[name]}
        if any(not isinstance(delta, Addition) for delta in active.values()):
            return _through(self.base, x, self.whole_weight(), self.base.bias)
        out = self.base(x)
        for name, delta in active.items():
            assert isinstance(delta, Addition)
            out = out + self.strengths[name] * _gain(delta, x, self.base)
        return out


def _gain(delta: Addition, x: Tensor, base: Layer) -> Tensor:
    return delta(x, base) if isinstance(delta, LowRank) else _through(base, x, delta.weight())


def _through(base: Layer, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A layer's output with another weight in its place."""
    weight = weight.to(x.dtype)
    if isinstance(base, nn.Linear):
        return F.linear(x, weight.flatten(1), bias)
    weight = weight.reshape(base.weight.shape)
    return F.conv2d(x, weight, bias, base.stride, base.padding, base.dilation, base.groups)


def rows_and_columns(layer: Layer) -> tuple[int, int]:
    """The shape that an addition to a layer's weight has."""
    return layer.weight.shape[0], layer.weight[0].numel()


def adaptable(network: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Every layer that an adapter can change, by its path; those within `Adapted` by the path of
    that.
    """
    for path, module in _modules(network):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            yield path.removesuffix(".base"), module


def inject(
    network: nn.Module, name: str, deltas: Mapping[str, nn.Module], strength: float = 1.0
) -> None:
    """Puts an adapter into a network: `deltas` by the path of the layer that each changes.

    Raises `ValueError` if a path is of no layer, a delta of another size, or the name is taken.
    """
    layers = dict(adaptable(network))
    for path, delta in deltas.items():
        layer = layers.get(path)
        if layer is None:
            raise ValueError(f"{path!r} is no linear or convolutional layer of the network.")
        shape, wanted = as_delta(delta).shape, rows_and_columns(layer)
        if shape != wanted:
            raise ValueError(f"The adapter {name!r} adds {shape} to {path!r}, which is {wanted}.")
        if isinstance(delta, Decomposed) and len(delta.magnitude) != layer.weight.shape[delta.axis]:
            raise ValueError(f"The magnitude of {name!r} is of another length than {path!r}.")
        module = network.get_submodule(path)
        if isinstance(module, Adapted) and name in module.deltas:
            raise ValueError(f"An adapter {name!r} is there already.")
    for path, delta in deltas.items():
        module = network.get_submodule(path)
        if not isinstance(module, Adapted):
            module = Adapted(layers[path])
            _put(network, path, module)
        module.deltas[name] = delta.to(layers[path].weight.device)
        module.strengths[name] = strength


def fresh(layer: Layer, rank: int, alpha: float) -> LowRank:
    """A LoRA to train for a layer, which adds nothing yet: `down` is drawn as a layer's weights are
    in torch, `up` is zero (Hu et al. 2021, arXiv 2106.09685, section 4.1).

    Its strength is `alpha / rank`. Raises `ValueError` for a convolution in groups.
    """
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise ValueError("a convolution in groups takes no LoRA.")
    out, inputs = layer.weight.shape[:2]
    kernel = layer.weight.shape[2:]
    down = nn.init.kaiming_uniform_(layer.weight.new_empty(rank, inputs, *kernel), a=math.sqrt(5))
    up = layer.weight.new_zeros(out, rank, *(1 for _ in kernel))
    return LowRank(down, up, alpha / rank)


@contextmanager
def silenced(network: nn.Module) -> Generator[None]:
    """A network as if no adapter were in it, while it lasts."""
    adapted = [module for _, module in _adapted(network)]
    held = [dict(module.strengths) for module in adapted]
    try:
        for module in adapted:
            module.strengths = dict.fromkeys(module.strengths, 0.0)
        yield
    finally:
        for module, strengths in zip(adapted, held, strict=True):
            module.strengths = strengths


def set_strength(network: nn.Module, name: str, strength: float) -> None:
    """Sets how strongly an adapter works, 0 for not at all; `KeyError` if it is not there."""
    touched = [module for _, module in _adapted(network) if name in module.deltas]
    if not touched:
        raise KeyError(name)
    for module in touched:
        module.strengths[name] = strength


def eject(network: nn.Module, name: str | None = None) -> None:
    """Takes an adapter (None: all) out; layers without any left are again what they were."""
    for path, module in list(_adapted(network)):
        for present in [name] if name is not None else list(module.deltas):
            if present in module.deltas:
                del module.deltas[present]
                del module.strengths[present]
        if not module.deltas:
            _put(network, path, module.base)


def fuse(network: nn.Module) -> None:
    """Puts all adapters into the weights for good; errors and rounding as `fused`."""
    for _ in _fused(network):
        pass


@contextmanager
def fused(network: nn.Module) -> Generator[None]:
    """Puts all adapters into the weights while it lasts, for the speed of a plain network.

    The network has plain layers then, and its adapters and weights back, to the bit, afterwards.
    The weights are reckoned in float32. Layers that hold theirs in fewer bytes (`nn.stored`) keep
    their adapters around them.
    """
    held: list[_Held] = []
    try:
        held.extend(_fused(network))
        yield
    finally:
        for entry in held:
            entry.module.base.weight = entry.weight
            _put(network, entry.path, entry.module)


def _fused(network: nn.Module) -> "Iterator[_Held]":
    """Makes each adapted layer a plain one, and says what it was."""
    for path, module in list(_adapted(network)):
        base = module.base
        if isinstance(base, (StoredLinear, StoredConv2d)):
            continue
        held = _Held(path, module, cast(nn.Parameter, base.weight))
        whole = module.whole_weight()
        base.weight = nn.Parameter(whole.to(base.weight.dtype), requires_grad=False)
        _put(network, path, base)
        yield held


@dataclass(frozen=True)
class _Held:
    path: str
    module: Adapted
    weight: nn.Parameter


def _adapted(network: nn.Module) -> Iterator[tuple[str, Adapted]]:
    for path, module in _modules(network):
        if isinstance(module, Adapted):
            yield path, module


def _modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    yield from network.named_modules()  # torch leaves their type open


def _put(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
