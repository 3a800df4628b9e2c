"""Convolutions whose weights lie as oneDNN wants them, once for all calls."""

import torch
from torch import Tensor, nn


class PackedConv2d(nn.Module):
    """A convolution for the CPU, without gradients, from an ordinary one whose weights it copies.

    oneDNN puts the weights into an order of its own in each call of an ordinary one, which for few
    pixels takes longer than the products. Rounds as oneDNN does. Pictures come back channels last.
    """

    def __init__(self, base: nn.Conv2d):
        super().__init__()
        assert isinstance(base.padding, tuple)
        self.out_channels = base.out_channels
        self.weight, self.bias = base.weight, base.bias  # shared; the first says the precision
        shape = (list(base.padding), list(base.stride), list(base.dilation), base.groups)
        self._shape = shape
        with torch.no_grad():
            weight = base.weight.detach().contiguous()
            self._packed = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *shape)  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        """(b, in, h, w) to (b, out, h', w')."""
        x = x.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)
        return torch.ops.mkldnn._convolution_pointwise(  # pyright: ignore
            x, self._packed, self.bias, *self._shape, "none", [], ""
        )


def can_pack(layer: nn.Module) -> bool:
    """Whether a layer is a convolution that oneDNN computes on this machine."""
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        return False
    known = layer.weight.device.type == "cpu" and layer.padding_mode == "zeros"
    return known and layer.weight.dtype == torch.float32 and _has_onednn()


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_convolution_pointwise"
    )
