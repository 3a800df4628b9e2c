"""Convolutions whose weights lie as oneDNN wants them, once for all calls."""

import torch
from torch import Tensor, nn


class PackedConv2d(nn.Module):
    """A convolution for the CPU, without gradients, in the place of an ordinary one.

    oneDNN puts the weights into an order of its own in each call of an ordinary one, which for few
    pixels takes longer than the products. That order depends on the picture's height and width, so
    it is made at the first call, and anew where these change. Pictures come back channels last.
    """

    def __init__(self, base: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = base.weight, base.bias  # shared
        assert isinstance(base.padding, tuple)
        self._shape = (list(base.padding), list(base.stride), list(base.dilation), base.groups)
        self._packed: Tensor | None = None
        self._size = torch.Size()

    def forward(self, x: Tensor) -> Tensor:
        """(b, in, h, w) to (b, out, h', w')."""
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        if self._packed is None or x.shape[2:] != self._size:
            self._packed, self._size = self._order(x), x.shape[2:]
        return torch.ops.mkldnn._convolution_pointwise(  # pyright: ignore
            x, self._packed, self.bias, *self._shape, "none", [], ""
        )

    def _order(self, x: Tensor) -> Tensor:
        weight = self.weight.detach().contiguous().to_mkldnn()
        return torch._C._nn.mkldnn_reorder_conv2d_weight(weight, *self._shape, list(x.shape))  # pyright: ignore


def can_pack(layer: nn.Conv2d) -> bool:
    """Whether oneDNN computes a convolution so on this machine."""
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    placed = layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32
    return plain and placed and has_onednn()


def has_onednn() -> bool:
    """Whether torch was built with what computes so."""
    known = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return known and torch.backends.mkldnn.is_available()
