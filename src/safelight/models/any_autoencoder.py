"""The kinds of autoencoder that a latent diffusion model may have, and where they differ."""

from safelight.models.autoencoder import Autoencoder
from safelight.models.tiny import TinyAutoencoder
from safelight.models.vq import VQAutoencoder

AnyAutoencoder = Autoencoder | VQAutoencoder | TinyAutoencoder


def latent_channels(autoencoder: AnyAutoencoder) -> int:
    """How many channels the latents have that it gives and takes."""
    if isinstance(autoencoder, VQAutoencoder):
        return autoencoder.config.codebook_dim
    return autoencoder.config.latent_channels
