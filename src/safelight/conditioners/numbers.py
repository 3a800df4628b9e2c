"""Numbers beside the prompt, such as the size that a picture should seem to come from."""

from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from safelight.models.unet import UNetConfig
from safelight.nn.embeddings import sinusoidal
from safelight.types import Conditioning


def with_numbers(
    cond: Conditioning, numbers: Float[Tensor, "b k"], unet: UNetConfig
) -> Conditioning:
    """Adds the sinusoidal features of each number to `cond.vector`, (b, v + k * added_time_dim).

    SDXL's base takes six, in pixels: original height and width, top and left of the crop, target
    height and width (Podell et al. 2023, arXiv 2307.01952, section 2.2).

    Raises `ValueError` for a U-Net that takes no numbers.
    """
    if unet.added_time_dim is None:
        raise ValueError("This U-Net takes no numbers beside the prompt.")
    features = sinusoidal(
        numbers.flatten(),
        unet.added_time_dim,
        flip_sin_to_cos=unet.flip_sin_to_cos,
        freq_shift=unet.freq_shift,
    )
    rows = rearrange(features, "(b k) d -> b (k d)", b=len(numbers))
    if cond.vector is None:
        return replace(cond, vector=rows)
    return replace(cond, vector=torch.cat([cond.vector, rows.to(cond.vector)], dim=1))
