"""How faithful a reconstruction is: peak signal-to-noise ratio and structural similarity."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Pixels = Float[Tensor, "b c h w"]
PerPicture = Float[Tensor, " b"]

WINDOW, SPREAD = 11, 1.5
"""Side and standard deviation, in pixels, of the Gaussian window of structural similarity."""


def psnr(output: Pixels, target: Pixels) -> PerPicture:
    """Peak signal-to-noise ratio in dB of pixels in [-1, 1], per picture; inf for equal ones."""
    error = (output.float() - target.float()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(4 / error)  # from black to white is 2


def ssim(output: Pixels, target: Pixels) -> PerPicture:
    """Structural similarity in [-1, 1] of pixels in [-1, 1], per picture, over all channels.

    A Gaussian window of 11 x 11 and standard deviation 1.5, K1 = 0.01, K2 = 0.03, and only places
    where the window fits (Wang et al. 2004, eq. 13). Pictures must measure at least 11 pixels.
    """
    if min(output.shape[-2:]) < WINDOW:
        raise ValueError(f"Structural similarity needs {WINDOW} pixels a side at least.")
    x, y = output.double() / 2 + 0.5, target.double() / 2 + 0.5  # black is 0, white 1
    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    spread = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return (likeness / spread).flatten(1).mean(dim=1).float()


def _blur(x: Tensor) -> Tensor:
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * SPREAD**2))
    window = window / window.sum()
    channels = x.shape[1]
    rows = window.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    x = F.conv2d(x, rows, groups=channels)
    return F.conv2d(x, rows.transpose(2, 3), groups=channels)
