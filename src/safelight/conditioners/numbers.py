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
    height and width; its refiner the first four and an aesthetic score from 0 to 10 (Podell et al.
    2023, arXiv 2307.01952, sections 2.2 and 2.5).

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
    return with_vector(cond, rows)


def with_guidance(
    cond: Conditioning, scale: float | Float[Tensor, " b"], unet: UNetConfig
) -> Conditioning:
    """Adds the sinusoidal features of a guidance scale, one or each picture's own, to
    `cond.vector`, for a network that was distilled to follow it without an unconditional half (Luo
    et al. 2023, arXiv 2310.04378, section 4.2): of `1000 * (scale - 1)`, the sines first, as
    published.

    Raises `ValueError` for a U-Net that takes no guidance.
    """
    if unet.guidance_dim is None or cond.context is None:
        raise ValueError("This U-Net takes no guidance scale.")
    w = 1000 * (scale - 1)
    if not isinstance(w, Tensor):
        w = torch.full((len(cond.context),), w, device=cond.context.device)
    features = sinusoidal(w, unet.guidance_dim, flip_sin_to_cos=False, freq_shift=1.0)
    return with_vector(cond, features)


def with_class(cond: Conditioning, number: int, unet: UNetConfig) -> Conditioning:
    """Adds a class, such as the x4 upscaler's noise level, as a one-hot to `cond.vector`.

    Raises `ValueError` for a U-Net that takes no classes by number.
    """
    if unet.class_kind != "embedding" or unet.class_dim is None or cond.context is None:
        raise ValueError("This U-Net takes no classes by number.")
    rows = torch.zeros(len(cond.context), unet.class_dim, device=cond.context.device)
    rows[:, number] = 1
    return with_vector(cond, rows)


def with_vector(cond: Conditioning, rows: Float[Tensor, "b w"]) -> Conditioning:
    """Adds rows to the end of `cond.vector`."""
    if cond.vector is None:
        return replace(cond, vector=rows)
    return replace(cond, vector=torch.cat([cond.vector, rows.to(cond.vector)], dim=1))
