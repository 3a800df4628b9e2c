"""Convolutions whose largest gain is 1, for discriminators."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SpectralConv2d(nn.Conv2d):
    """A convolution whose kernel, as a matrix of a row an output channel, is divided by its largest
    singular value (Miyato et al. 2018, arXiv 1802.05957, algorithm 1).

    `iterate` brings the estimate of that value up to date, once a step. Differs from torch's
    `spectral_norm` because there each pass in training moves the estimate, so that a batch worked
    off in parts, or looked at twice, would be judged by several networks.
    """

    u: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0):
        super().__init__(in_channels, out_channels, kernel_size, padding=padding)
        self.register_buffer("u", F.normalize(torch.randn(out_channels), dim=0))
        for _ in range(_WARM_UP):
            self.iterate()

    @torch.no_grad()
    def iterate(self) -> None:
        """One step of the power iteration towards the kernel's first left singular vector."""
        matrix = self.weight.flatten(1)
        self.u.copy_(F.normalize(matrix @ self._right(matrix), dim=0))

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        """(b, in, h, w) to (b, out, h, w) by the kernel over its largest singular value."""
        matrix = self.weight.flatten(1)
        largest = self.u @ (matrix @ self._right(matrix).detach())
        return F.conv2d(input, self.weight / largest, self.bias, padding=self.padding)

    def _right(self, matrix: Float[Tensor, "o i"]) -> Float[Tensor, " i"]:
        """The right singular vector that goes with `u`."""
        return F.normalize(matrix.T @ self.u, dim=0)


_WARM_UP = 15  # as torch's own
