"""Pictures as conditioning: prepared for an image tower, and its vectors noised (unCLIP)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from safelight.nn.embeddings import sinusoidal


@dataclass(frozen=True)
class Preparation:
    """How a picture is made ready for an image tower; the defaults are CLIP's."""

    shortest: int = 224  # pixels that the shorter side is resized to
    side: int = 224  # pixels of the square that is cut from the middle
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


def prepared(image: Image.Image, preparation: Preparation) -> Float[Tensor, "1 3 s s"]:
    """An RGB picture resized, its middle cut out and normalised, as transformers'
    `CLIPImageProcessor` does by Pillow; where the square is larger, black surrounds it.
    """
    width, height = image.size
    shorter = min(width, height)
    size = tuple(
        preparation.shortest if side == shorter else preparation.shortest * side // shorter
        for side in (width, height)
    )
    resized = image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    left, top = ((side - preparation.side) // 2 for side in resized.size)
    middle = resized.crop((left, top, left + preparation.side, top + preparation.side))
    levels = torch.from_numpy(np.asarray(middle, dtype=np.float32) / 255).permute(2, 0, 1)
    mean, std = (torch.tensor(row)[:, None, None] for row in (preparation.mean, preparation.std))
    return ((levels - mean) / std)[None]


def smoothly_prepared(image: Image.Image, preparation: Preparation) -> Float[Tensor, "1 3 s s"]:
    """An RGB picture made ready as Stable Video Diffusion does: the whole of it, whatever its
    proportions, blurred as far as it is made smaller, brought to the square by cubic interpolation
    whose corners stay, and normalised.
    """
    levels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    x, side = levels * 2 - 1, preparation.side
    for axis in (-1, -2):
        x = _blurred(x, max((x.shape[axis] / side - 1) / 2, 0.001), axis)
    x = F.interpolate(x, size=(side, side), mode="bicubic", align_corners=True)
    mean, std = (torch.tensor(row)[:, None, None] for row in (preparation.mean, preparation.std))
    return ((x + 1) / 2 - mean) / std


def _blurred(x: Float[Tensor, "1 c h w"], sigma: float, axis: int) -> Float[Tensor, "1 c h w"]:
    """A normal density of that spread laid over one axis, mirrored at the edges."""
    size = max(int(4 * sigma), 3) | 1
    offset = torch.arange(size, dtype=torch.float32) - size // 2
    weight = torch.exp(-(offset**2) / (2 * sigma**2))
    weight = (weight / weight.sum()).expand(x.shape[1], 1, 1, size)
    x = x.transpose(axis, -1)
    wide = F.pad(x, (size // 2, size // 2, 0, 0), mode="reflect")
    return F.conv2d(wide, weight, groups=x.shape[1]).transpose(axis, -1)


class Normalizer(nn.Module):
    """The mean and spread of a tower's vectors, in which they are noised."""

    def __init__(self, width: int):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, width))
        self.std = nn.Parameter(torch.ones(1, width))


def noised(
    vectors: Float[Tensor, "b p"],
    normalizer: Normalizer,
    sigma: float,
    level: int,
    noise: Float[Tensor, "b p"],
) -> Float[Tensor, "b 2*p"]:
    """Vectors of pictures, noised, and beside them the features of how much (Ramesh et al. 2022,
    arXiv 2204.06125, section 2.1; as diffusers' `StableUnCLIPImg2ImgPipeline`).

    `sigma` is the noise of `level`, a time of the noising schedule; more lets a picture stray
    further.
    """
    mean, std = normalizer.mean, normalizer.std
    plain = (vectors - mean) / std
    mixed = (plain + sigma * noise.to(plain)) / (1 + sigma**2) ** 0.5
    t = torch.full((len(vectors),), float(level), device=vectors.device)
    features = sinusoidal(t, vectors.shape[1], flip_sin_to_cos=True, freq_shift=0.0)
    return torch.cat([mixed * std + mean, features.to(vectors)], dim=1)
