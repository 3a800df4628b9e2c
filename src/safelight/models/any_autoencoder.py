"""The kinds of autoencoder that a latent diffusion model may have, and where they differ."""

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.models.autoencoder import Autoencoder
from safelight.models.tiny import TinyAutoencoder
from safelight.models.vq import VQAutoencoder

AnyAutoencoder = Autoencoder | VQAutoencoder | TinyAutoencoder


def weight_dtype(autoencoder: AnyAutoencoder) -> torch.dtype:
    """The precision of its weights, in which it takes pictures and latents."""
    return next(autoencoder.parameters()).dtype


def latent_channels(autoencoder: AnyAutoencoder) -> int:
    """How many channels the latents have that it gives and takes."""
    if isinstance(autoencoder, VQAutoencoder):
        return autoencoder.config.codebook_dim
    return autoencoder.config.latent_channels


def likeliest(
    autoencoder: AnyAutoencoder, pixels: Float[Tensor, "b c H W"]
) -> Float[Tensor, "b z h w"]:
    """Unscaled latents of pictures in [-1, 1]: of those that it finds possible, the likeliest."""
    found = autoencoder.encode(pixels)
    return found if isinstance(found, Tensor) else found.mode()
