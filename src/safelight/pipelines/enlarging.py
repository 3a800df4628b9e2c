"""Finished latents made larger, for a second pass."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.pipelines.coding import decoded, encoded_surely
from safelight.pipelines.request import Hires

Latents = Float[Tensor, "b c h w"]


def enlarged(
    autoencoder: AnyAutoencoder, z: Latents, hires: Hires, *, tiled: bool
) -> Float[Tensor, "b c H W"]:
    """Scaled latents of a picture `hires.scale` times as large, to the nearest whole latent."""
    height, width = (max(round(side * hires.scale), side + 1) for side in z.shape[-2:])
    if hires.upscaler == "latent":
        return F.interpolate(z, size=(height, width), mode="bilinear", align_corners=False)
    pixels = decoded(autoencoder, autoencoder.unscale(z), tiled=tiled)
    size = (width * autoencoder.factor, height * autoencoder.factor)
    larger = torch.stack([_resized(picture, size) for picture in pixels.clamp(-1, 1).cpu()])
    found = encoded_surely(autoencoder, larger.to(pixels), tiled=tiled)
    return autoencoder.scale(found).float()


def _resized(pixels: Float[Tensor, "3 h w"], size: tuple[int, int]) -> Float[Tensor, "3 H W"]:
    """A picture by Lanczos, a colour at a time, without rounding to levels between."""
    planes = (
        Image.fromarray(plane.numpy()).resize(size, Image.Resampling.LANCZOS) for plane in pixels
    )
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])).clamp(-1, 1)
