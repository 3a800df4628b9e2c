"""Layers that hold their weights in fewer bytes than they compute with."""

import math
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from safelight.nn.deltas import Layer


class Room:
    """Where the weight that a layer computes with lies for one call: as much as the largest of a
    network takes, written by layer after layer. One thread at a time may use it.
    """

    def __init__(self):
        self._whole = torch.empty(0)

    def of(self, shape: torch.Size, x: Tensor) -> Tensor:
        """So much of it, in x's precision and on its device."""
        numbers = math.prod(shape)
        whole = self._whole
        if whole.numel() < numbers or whole.dtype != x.dtype or whole.device != x.device:
            self._whole = whole = torch.empty(0)  # frees the one before
            with torch.inference_mode(False):  # so that it is written outside of that mode too
                self._whole = whole = x.new_empty(numbers, requires_grad=False)
        return whole[:numbers].view(shape)


class _Held:
    """A weight in fewer bytes: in another precision, or as whole numbers with a scale a row."""

    weight: nn.Parameter
    scale: Tensor | None
    room: Room

    def whole_weight(self) -> Tensor:
        """The weight that the layer computes with, in float32."""
        return _filled(self.weight.float(), self.scale)

    def present(self, x: Tensor) -> Tensor:
        """The same in x's precision, until another layer takes its room."""
        return _filled(self.room.of(self.weight.shape, x).copy_(self.weight), self.scale)


class StoredLinear(nn.Linear, _Held):
    """A linear layer that holds its weight in fewer bytes, without gradients.

    The weight may have the two axes of a 1x1 kernel behind its own.
    """

    def __init__(self, base: nn.Linear, codes: Tensor, scale: Tensor | None, room: Room):
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scale", scale, persistent=False)
        self.bias, self.room = base.bias, room

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return F.linear(input, self.present(input).flatten(1), self.bias)


class StoredConv2d(nn.Conv2d, _Held):
    """A convolution that holds its weight in fewer bytes, without gradients."""

    def __init__(self, base: nn.Conv2d, codes: Tensor, scale: Tensor | None, room: Room):
        shape = (base.in_channels, base.out_channels, base.kernel_size)
        laid = (base.stride, base.padding, base.dilation, base.groups)
        super().__init__(*shape, *laid, bias=False, device="meta")  # pyright: ignore[reportArgumentType]
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scale", scale, persistent=False)
        self.bias, self.room = base.bias, room

    def forward(self, input: Tensor) -> Tensor:
        """(b, in, h, w) to (b, out, h', w')."""
        return self._conv_forward(input, self.present(input), self.bias)


def store(network: nn.Module, dtype: torch.dtype, computing: torch.dtype) -> None:
    """Lets linear layers and convolutions hold their weights in `dtype` and compute in `computing`,
    to which everything else in the network is brought.

    With `torch.int8` weights become whole numbers from -127 to 127 with a scale for each output,
    the largest of its weights over 127 (absmax; as LLM.int8() has it, Dettmers et al. 2022, arXiv
    2208.07339, section 2.1). A network's first and last convolution stay as they are, in
    `computing`: what they hold is little, and all of a picture goes through them.
    """
    room = Room()
    for path, module in list(cast(Iterator[tuple[str, nn.Module]], network.named_modules())):
        if path.rpartition(".")[2] in _WHOLE or not _can_be_stored(module):
            _bring(module, computing)
            continue
        codes, scale = _coded(cast(Layer, module).weight.detach(), dtype, computing)
        _bring_bias(cast(Layer, module), computing)
        if isinstance(module, nn.Linear):
            held = StoredLinear(module, codes, scale, room)
        else:
            held = StoredConv2d(cast(nn.Conv2d, module), codes, scale, room)
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, held.train(module.training))


def weight_of(layer: Layer) -> Tensor:
    """A layer's weight in float32, however it is held."""
    if isinstance(layer, (StoredLinear, StoredConv2d)):
        return layer.whole_weight()
    return layer.weight.detach().float()


def _can_be_stored(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return type(module) is nn.Conv2d and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def _coded(
    weight: Tensor, dtype: torch.dtype, computing: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    if dtype != torch.int8:
        return weight.to(dtype), None
    rows = weight.float()
    largest = rows.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny)
    scale = (largest / 127).reshape(-1, *[1] * (rows.ndim - 1))
    return (rows / scale).round_().to(torch.int8), scale.to(computing)


def _filled(weight: Tensor, scale: Tensor | None) -> Tensor:
    return weight if scale is None else weight.mul_(scale)


def _bring(module: nn.Module, dtype: torch.dtype) -> None:
    """A module's own tensors in another precision."""
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def _bring_bias(layer: Layer, dtype: torch.dtype) -> None:
    if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        layer.bias.data = layer.bias.data.to(dtype)


_WHOLE = ("conv_in", "conv_out")
