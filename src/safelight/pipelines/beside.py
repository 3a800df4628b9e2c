"""The channels that a network sees beside the noised latent, made of given pictures."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.checkpoints.folder import Folder
from safelight.errors import SafelightError
from safelight.pipelines.coding import encoded, encoded_surely
from safelight.pipelines.given import WHITE_FROM, GivenPicture, resized

Latents = Float[Tensor, "b c h w"]


def masked(
    folder: Folder,
    mask: Float[Tensor, "1 1 H W"],
    pixels: Float[Tensor, "b 3 H W"],
    noise: Latents,
    *,
    tiled: bool = False,
) -> Tensor:
    """For inpainting (Rombach et al. 2022, section 4.5): the mask at the latents' size and the
    latents of the picture without what is under it, (b, 1 + c, h, w).
    """
    kept = encoded(folder.autoencoder, pixels * (mask < 0.5), noise, tiled=tiled)
    small = F.interpolate(mask, size=(noise.shape[-2], noise.shape[-1]))
    return torch.cat([small.expand(len(noise), -1, -1, -1).float(), kept], dim=1)


def instructed(folder: Folder, pixels: Float[Tensor, "b 3 H W"], *, tiled: bool = False) -> Latents:
    """For editing by instruction (Brooks et al. 2023, section 3.2): the picture's most probable
    latents, which InstructPix2Pix takes unscaled and CosXL scaled, (b, c, h, w).
    """
    autoencoder = folder.autoencoder
    z = encoded_surely(autoencoder, pixels, tiled=tiled)
    return (autoencoder.scale(z) if folder.settings.get("is_cosxl_edit") is True else z).float()


def depth_beside(depth: GivenPicture, height: int, width: int) -> Float[Tensor, "1 1 h w"]:
    """A depth map at the latents' size, its range spread over [-1, 1] (Stable Diffusion 2's
    depth-to-image).
    """
    small = F.interpolate(
        depth_tensor(depth), size=(height, width), mode="bicubic", align_corners=False
    )
    low, high = small.amin(), small.amax()
    if low == high:
        raise SafelightError("The depth map is the same everywhere; expected one that varies.")
    return 2 * (small - low) / (high - low) - 1


def noised_small(
    folder: Folder, image: GivenPicture, level: int, noise: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """For upscaling: the picture itself at the latents' size, noised to a time of its own schedule
    (Ho et al. 2022, arXiv 2106.15282, section 3).
    """
    schedule = folder.low_resolution.schedule()
    sigma = schedule.t_to_sigma(torch.tensor(float(level), dtype=torch.float64)).item()
    pixels = image_tensor(image.picture, noise.shape[-1], noise.shape[-2]).to(noise)
    return (pixels + sigma * noise) / (1 + sigma**2) ** 0.5


def image_tensor(image: Image.Image, width: int, height: int) -> Float[Tensor, "1 3 h w"]:
    """An RGB picture in [-1, 1], resized by Lanczos as diffusers does."""
    levels = np.asarray(resized(image, (width, height)), dtype=np.float32) / 255
    return torch.from_numpy(levels).permute(2, 0, 1)[None] * 2 - 1


def mask_tensor(given: GivenPicture, width: int, height: int) -> Float[Tensor, "1 1 h w"]:
    """A mask of ones, which are made anew, and zeros."""
    levels = np.array(resized(given.picture, (width, height)))
    return (torch.from_numpy(levels)[None, None] >= WHITE_FROM).float()


def depth_tensor(given: GivenPicture) -> Float[Tensor, "1 1 h w"]:
    """A depth map in its own values and size."""
    return torch.from_numpy(np.array(given.picture, dtype=np.float32))[None, None]
