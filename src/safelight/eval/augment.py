"""Pictures made a little worse at random, so that a judge knows what is shown, not exact pixels."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Pixels = Float[Tensor, "b c h w"]


def disturb(pixels: Pixels, generator: torch.Generator, strength: float = 1.0) -> Pixels:
    """Changes brightness, contrast and tint, blurs, and adds fine and coarse noise, per picture.

    Pixels are in [-1, 1] and stay so; `strength` 0 changes nothing.
    """
    pixels = _tint(pixels, generator, strength)
    pixels = _blur(pixels, generator, 1.2 * strength)
    fine = _amount(pixels, generator, 0.1 * strength) * _noise(pixels, generator, 1)
    coarse = _amount(pixels, generator, 0.15 * strength) * _noise(pixels, generator, 8)
    return (pixels + fine + coarse).clamp(-1, 1)


def recolour(
    pixels: Float[Tensor, "b 3 h w"], chosen: Bool[Tensor, " b"], generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Mixes the colour channels of the chosen pictures at random; light and dark stay."""
    weights = torch.rand(len(pixels), 3, 3, generator=generator) ** 2
    weights = weights / weights.sum(dim=2, keepdim=True)
    weights = torch.where(chosen[:, None, None], weights, torch.eye(3))
    return torch.einsum("bij,bjhw->bihw", weights, pixels)


def random_shifts(
    count: int, generator: torch.Generator, *, shift: float, zoom: float, flip: bool
) -> Float[Tensor, "b 2 3"]:
    """Affine maps for `move`: shifts up to a fraction of the picture, sizes in 1/(1+zoom)..1+zoom,
    and mirror images.
    """
    size = (1 + zoom) ** (2 * torch.rand(count, generator=generator) - 1)
    sign = torch.ones(count)
    if flip:
        sign = 1 - 2 * (torch.rand(count, generator=generator) < 0.5).float()
    offset = 2 * shift * (2 * torch.rand(count, 2, generator=generator) - 1)
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0] = sign / size
    maps[:, 1, 1] = 1 / size
    maps[:, :, 2] = offset
    return maps


def move(pixels: Pixels, maps: Float[Tensor, "b 2 3"], *, nearest: bool = False) -> Pixels:
    """Pictures (or, by nearest neighbour, label maps) seen through affine maps, edges continued."""
    grid = F.affine_grid(maps, list(pixels.shape), align_corners=False)
    mode = "nearest" if nearest else "bilinear"
    return F.grid_sample(pixels, grid, mode=mode, padding_mode="border", align_corners=False)


def _tint(pixels: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    def around_one(spread: float, channels: int) -> Tensor:
        drawn = torch.rand(len(pixels), channels, 1, 1, generator=generator)
        return 1 + strength * spread * (2 * drawn - 1)

    bright = (pixels + 1) / 2
    bright = bright.clamp(min=1e-4) ** around_one(0.25, 1)  # gamma
    bright = bright * around_one(0.1, 1) * around_one(0.04, 3)
    grey = bright.mean(dim=1, keepdim=True)
    bright = grey + (bright - grey) * around_one(0.2, 1)  # saturation
    middle = bright.mean(dim=(1, 2, 3), keepdim=True)
    return 2 * (middle + (bright - middle) * around_one(0.15, 1)) - 1  # contrast


def _blur(pixels: Tensor, generator: torch.Generator, spread: float) -> Tensor:
    radius = 3
    drawn = torch.rand(len(pixels), 1, generator=generator)
    sigma = (spread * (2 * drawn - 1)).clamp(min=0.05)  # half of the pictures stay sharp
    offsets = torch.arange(-radius, radius + 1)
    window = torch.exp(-(offsets**2) / (2 * sigma**2))
    window = (window / window.sum(dim=1, keepdim=True)).repeat_interleave(pixels.shape[1], dim=0)
    x = pixels.reshape(1, -1, *pixels.shape[2:])
    x = F.pad(x, [radius] * 4, mode="replicate")
    groups = x.shape[1]
    x = F.conv2d(x, window[:, None, None, :], groups=groups)
    x = F.conv2d(x, window[:, None, :, None], groups=groups)
    return x.reshape(pixels.shape)


def _amount(pixels: Tensor, generator: torch.Generator, most: float) -> Tensor:
    return most * torch.rand(len(pixels), 1, 1, 1, generator=generator)


def _noise(pixels: Tensor, generator: torch.Generator, grain: int) -> Tensor:
    height, width = pixels.shape[2:]
    shape = (len(pixels), pixels.shape[1], -(-height // grain), -(-width // grain))
    noise = torch.randn(shape, generator=generator)
    if grain == 1:
        return noise
    return F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
