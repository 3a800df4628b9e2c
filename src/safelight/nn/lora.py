"""Adapters: small additions to the weights of named layers, put in and taken out again.

`inject` swaps layers for `Adapted` ones around them, `eject` swaps them back, `fused` adds the
changes to the weights themselves for as long as it lasts. The base is never changed: it comes back
to the bit.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d


@runtime_checkable
class Delta(Protocol):
    """What an adapter adds to one layer's weight."""

    @property
    def shape(self) -> tuple[int, int]:
        """The addition's rows and columns, told without making it."""
        ...

    def weight(self) -> Tensor:
        """The addition at strength 1: (out, in), or (out, in * h * w) for a kernel."""
        ...


class LowRank(nn.Module):
    """LoRA: `scale * up @ down` (Hu et al. 2021, arXiv 2106.09685, section 4.1).

    `down` is (rank, in, ...) and `up` (out, rank, ...), with the kernel's axes for convolutions.
    `mid` (rank, rank, h, w), if any, stands between them, as LyCORIS has it for kernels.
    """

    def __init__(self, down: Tensor, up: Tensor, scale: float, mid: Tensor | None = None):
        super().__init__()
        if down.ndim not in (2, 4) or up.ndim not in (2, 4) or up.shape[1] != down.shape[0]:
            raise ValueError(f"down {tuple(down.shape)} and up {tuple(up.shape)} do not fit.")
        if up[0].numel() != down.shape[0] or down.shape[0] < 1:
            raise ValueError(f"up {tuple(up.shape)} has a kernel, or there is no rank.")
        if mid is not None and (mid.ndim != 4 or mid.shape[:2] != (up.shape[1], down.shape[0])):
            raise ValueError(f"mid {tuple(mid.shape)} does not fit between the two.")
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.mid = None if mid is None else nn.Parameter(mid)
        self.scale = scale

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in * h * w)."""
        window = 1 if self.mid is None else self.mid[0, 0].numel()
        return self.up.shape[0], self.down[0].numel() * window

    def weight(self) -> Tensor:
        """(out, in * h * w)."""
        up, down = self.up.flatten(1), self.down
        if self.mid is None:
            return self.scale * up @ down.flatten(1)
        whole = torch.einsum("or,rshw,si->oihw", up, self.mid, down.flatten(1))
        return self.scale * whole.flatten(1)

    def forward(self, x: Tensor, base: Layer) -> Tensor:
        """What the layer's output gains for the input `x`, without the whole weight being made."""
        whole_down, whole_up = self.down.to(x.dtype), self.up.to(x.dtype)
        if isinstance(base, nn.Linear):
            return self.scale * F.linear(F.linear(x, whole_down.flatten(1)), whole_up.flatten(1))
        up = whole_up.reshape(*self.up.shape[:2], 1, 1)
        if self.mid is None:
            down = whole_down.reshape(*self.down.shape[:2], *base.weight.shape[2:])
            inner = F.conv2d(x, down, None, base.stride, base.padding, base.dilation)
        else:
            down = whole_down.reshape(*self.down.shape[:2], 1, 1)
            inner = F.conv2d(x, down)
            mid = self.mid.to(x.dtype)
            inner = F.conv2d(inner, mid, None, base.stride, base.padding, base.dilation)
        return self.scale * F.conv2d(inner, up)


class Hadamard(nn.Module):
    """LoHa: `scale * (w1_a @ w1_b) * (w2_a @ w2_b)` (Hyeon-Woo et al. 2021, arXiv 2108.06098,
    proposition 2); with cores `t1` and `t2` for kernels, its proposition 3.
    """

    def __init__(
        self,
        first: tuple[Tensor, Tensor],
        second: tuple[Tensor, Tensor],
        scale: float,
        cores: tuple[Tensor, Tensor] | None = None,
    ):
        super().__init__()
        for a, b in (first, second):
            if a.ndim != 2 or b.ndim != 2:
                raise ValueError("its factors are no matrices.")
        for core in cores or ():
            if core.ndim != 4:
                raise ValueError("its cores are no kernels.")
        self.first = nn.ParameterList(first)
        self.second = nn.ParameterList(second)
        self.cores = None if cores is None else nn.ParameterList(cores)
        self.scale = scale

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in * h * w)."""
        a, b = self.first[0], self.first[1]
        if self.cores is None:
            return a.shape[0], b.shape[1]
        return a.shape[1], b.shape[1] * self.cores[0][0, 0].numel()

    def weight(self) -> Tensor:
        """(out, in * h * w)."""
        if self.cores is None:
            return self.scale * (self.first[0] @ self.first[1]) * (self.second[0] @ self.second[1])
        halves = [
            torch.einsum("pqhw,po,qi->oihw", core, a, b)
            for core, (a, b) in zip(self.cores, (self.first, self.second), strict=True)
        ]
        return self.scale * (halves[0] * halves[1]).flatten(1)


class Kronecker(nn.Module):
    """LoKr: `scale * kron(w1, w2)` (Yeh et al. 2023, arXiv 2309.14859, section 3.2), each factor
    whole or a product of two.
    """

    def __init__(self, first: Tensor, second: Tensor, scale: float):
        super().__init__()
        if first.ndim != 2 or second.ndim not in (2, 4):
            raise ValueError("its factors are no matrices.")
        self.first = nn.Parameter(first)
        self.second = nn.Parameter(second)
        self.scale = scale

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in * h * w)."""
        out, inputs = self.first.shape
        return out * self.second.shape[0], inputs * self.second[0].numel()

    def weight(self) -> Tensor:
        """(out, in * h * w)."""
        first = self.first
        if self.second.ndim == 4:
            first = first.reshape(*first.shape[:2], 1, 1)
        return self.scale * torch.kron(first, self.second.contiguous()).flatten(1)


class Adapted(nn.Module):
    """A layer with adapters around it, each at its own strength."""

    def __init__(self, base: Layer):
        super().__init__()
        self.base = base
        self.deltas = nn.ModuleDict()
        self.strengths: dict[str, float] = {}

    @property
    def weight(self) -> Tensor:
        """The base's own weight."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """The base's output and what each adapter adds to it."""
        out = self.base(x)
        for name, delta in self.deltas.items():
            strength = self.strengths[name]
            if strength:
                out = out + strength * _gain(delta, x, self.base)
        return out


def _gain(delta: nn.Module, x: Tensor, base: Layer) -> Tensor:
    if isinstance(delta, LowRank):
        return delta(x, base)
    weight = _weight_of(delta).to(x.dtype)
    if isinstance(base, nn.Linear):
        return F.linear(x, weight)
    weight = weight.reshape(base.weight.shape)
    return F.conv2d(x, weight, None, base.stride, base.padding, base.dilation, base.groups)


def _weight_of(delta: nn.Module) -> Tensor:
    return as_delta(delta).weight()


def as_delta(module: nn.Module) -> Delta:
    """A module as what an adapter adds; `TypeError` if it is none."""
    if not isinstance(module, Delta):
        raise TypeError(f"{type(module).__name__} is no adapter.")
    return module


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


@contextmanager
def fused(network: nn.Module) -> Generator[None]:
    """Adds all adapters to the weights while it lasts, for the speed of a plain network.

    The network has plain layers then, and its adapters and weights back, to the bit, afterwards.
    The sums are made in float32.
    """
    held: list[_Held] = []
    try:
        for path, module in list(_adapted(network)):
            base = module.base
            held.append(_Held(path, module, cast(nn.Parameter, base.weight)))
            change = sum(
                (
                    module.strengths[name] * _weight_of(delta).float()
                    for name, delta in module.deltas.items()
                ),
                torch.zeros((), device=base.weight.device),
            )
            whole = base.weight.detach().float() + change.reshape(base.weight.shape)
            base.weight = nn.Parameter(whole.to(base.weight.dtype), requires_grad=False)
            _put(network, path, base)
        yield
    finally:
        for entry in held:
            entry.module.base.weight = entry.weight
            _put(network, entry.path, entry.module)


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
