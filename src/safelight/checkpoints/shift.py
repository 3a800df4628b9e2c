"""A latent shift moved into an autoencoder's weights, because diffusers' Stable Diffusion pipelines
know only a scale.
"""

import copy
from dataclasses import replace

from safelight.models.autoencoder import Autoencoder


def without_shift(autoencoder: Autoencoder) -> Autoencoder:
    """An autoencoder that gives and takes the same scaled latents with a `shift_factor` of 0.

    The shift goes into the biases of the two 1x1 convolutions around the latents; an autoencoder
    that lacks them, or that has no shift, comes back as it is.
    """
    shift = autoencoder.config.shift_factor
    if not shift or autoencoder.quant_conv is None or autoencoder.post_quant_conv is None:
        return autoencoder
    plain = copy.deepcopy(autoencoder)
    plain.config = replace(plain.config, shift_factor=0.0)
    state = plain.state_dict()
    means = state["quant_conv.bias"][: plain.config.latent_channels]
    means -= shift
    state["post_quant_conv.bias"] += shift * state["post_quant_conv.weight"].sum(dim=(1, 2, 3))
    return plain
