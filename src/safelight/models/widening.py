"""A U-Net made ready to be told more: channels beside the latent, classes, the guidance scale."""

import copy
from dataclasses import replace

import torch

from safelight.models.unet import UNet


def widened(unet: UNet, channels: int, classes: int) -> UNet:
    """The same U-Net that takes `channels` more beside its input, and `classes`, if any.

    What is new starts at zero, so that the output is at first that of the U-Net, whatever is told
    (as Stable Diffusion's inpainting and depth models were begun).

    Raises `ValueError` for classes, where the U-Net is told some already.
    """
    config = unet.config
    if classes and config.class_dim is not None:
        raise ValueError("This U-Net is told classes, or what stands in their place, already.")
    wide = UNet(
        replace(
            config,
            in_channels=config.in_channels + channels,
            class_dim=classes or config.class_dim,
        )
    )
    state = unet.state_dict()
    first = state["conv_in.weight"]
    new = first.new_zeros((len(first), channels, *first.shape[2:]))
    state["conv_in.weight"] = torch.cat([first, new], 1)
    if classes:
        state["class_embedding.weight"] = first.new_zeros((classes, config.emb_dim))
    wide.load_state_dict(state)
    return wide.train(unet.training)


def told_guidance(unet: UNet, dim: int) -> UNet:
    """A copy of a U-Net that is also told the guidance scale, by `dim` features (Luo et al. 2023,
    arXiv 2310.04378, section 4.2; diffusers' `time_cond_proj_dim`).

    Their projection starts at zero, so that the output is at first that of the U-Net, whatever the
    scale. One that is told it already is copied as it is.
    """
    if unet.config.guidance_dim is not None:
        return copy.deepcopy(unet)
    told = UNet(replace(unet.config, guidance_dim=dim))
    first = unet.time_embedding.linear_1.weight
    zero = first.new_zeros(first.shape[1], dim)
    told.load_state_dict({**unet.state_dict(), "time_embedding.cond_proj.weight": zero})
    return told.train(unet.training)
