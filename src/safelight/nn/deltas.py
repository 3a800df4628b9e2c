"""What an adapter makes of one layer's weight: additions of low rank and their kin, and DoRA around
them.
"""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv2d


@runtime_checkable
class Delta(Protocol):
    """What an adapter makes of one layer's weight."""

    @property
    def shape(self) -> tuple[int, int]:
        """The rows and columns of the weight that it is for, (out, in * h * w)."""
        ...

    def applied(self, weight: Tensor, base: Tensor, strength: float) -> Tensor:
        """A weight (out, in) or (out, in, h, w) with the adapter in it.

        `base` is the layer's own weight; `weight` has the adapters that came before in it.
        """
        ...


class Addition(nn.Module, ABC):
    """An adapter that adds to a layer's weight, whatever that is."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The addition's rows and columns, (out, in * h * w), told without making it."""

    @abstractmethod
    def weight(self) -> Tensor:
        """The addition at strength 1, (out, in * h * w)."""

    def applied(self, weight: Tensor, base: Tensor, strength: float) -> Tensor:
        """`weight + strength * addition`."""
        return weight + strength * self.weight().reshape(base.shape).to(weight.dtype)


class Whole(Addition):
    """A difference of the weight's own shape, (out, in, ...), as ComfyUI saves those that no low
    rank comes near.
    """

    def __init__(self, difference: Tensor):
        super().__init__()
        if difference.ndim not in (2, 4):
            raise ValueError(f"a difference of {difference.ndim} axes is of no matrix or kernel.")
        self.difference = nn.Parameter(difference, requires_grad=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Its rows and columns."""
        return self.difference.shape[0], self.difference[0].numel()

    def weight(self) -> Tensor:
        """Itself, as a matrix."""
        return self.difference.flatten(1)


class LowRank(Addition):
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


class Hadamard(Addition):
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


class Kronecker(Addition):
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


class Decomposed(nn.Module):
    """DoRA: the direction of the weight with an addition in it, and a magnitude of its own (Liu et
    al. 2024, arXiv 2402.09353, equation 5): `magnitude * (base + addition) / |base + addition|`.

    The norm is of each output, or, as LyCORIS had it first, of each input channel. The strength
    scales the addition, within the norm too, and not the magnitude, as in peft. Adapters that came
    before are scaled with the weight and are not in the norm, as in peft.
    """

    def __init__(self, addition: Addition, magnitude: Tensor, *, of_inputs: bool = False):
        super().__init__()
        if magnitude.ndim != 1:
            raise ValueError(f"its magnitude {tuple(magnitude.shape)} is no vector.")
        self.addition = addition
        self.magnitude = nn.Parameter(magnitude)
        self.axis = int(of_inputs)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in * h * w)."""
        return self.addition.shape

    def applied(self, weight: Tensor, base: Tensor, strength: float) -> Tensor:
        """The weight with the addition in it, its rows or columns of other lengths."""
        others = [axis for axis in range(base.ndim) if axis != self.axis]
        whole = self.addition.applied(base, base, strength)
        norm = whole.square().sum(dim=others, keepdim=True).sqrt()
        magnitude = self.magnitude.to(norm.dtype).reshape(norm.shape)
        factor = magnitude / norm.clamp_min(torch.finfo(norm.dtype).eps)  # a row may be all zeros
        return factor * self.addition.applied(weight, base, strength)


def as_delta(module: nn.Module) -> Delta:
    """A module as what an adapter makes of a weight; `TypeError` if it is none."""
    if not isinstance(module, Delta):
        raise TypeError(f"{type(module).__name__} is no adapter.")
    return module
