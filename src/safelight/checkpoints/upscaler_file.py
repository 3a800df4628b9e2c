"""CompVis' super-resolution model in one file, as `bsr_sr` was published."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from safelight.checkpoints.components import filled
from safelight.checkpoints.families import UNET, VAE, is_super_resolution
from safelight.checkpoints.files import State
from safelight.checkpoints.inspection import names_of
from safelight.checkpoints.rules import to_ours
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.checkpoints.tables import autoencoder, compvis, shapes
from safelight.checkpoints.tables.unet2d import UNET_2D
from safelight.checkpoints.weights_file import read_weights_file
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.models.vq import VQAutoencoder

PUBLISHED = SchedulerConfig(
    class_name="DDIMScheduler", beta_start=0.0015, beta_end=0.0155, set_alpha_to_one=False
)
"""How it was trained, and is sampled by CompVis' own script."""
_HEAD = 32  # channels of a head, which leave no trace
_SIZE = 64
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}


def is_upscaler_file(path: Path) -> bool:
    """Whether a file of weights is such a model, by the names and shapes of its tensors; errors as
    `inspect`.
    """
    return is_super_resolution(names_of(path)[0])


def read_upscaler_file(
    path: Path, *, dtype: torch.dtype, device: torch.device | str
) -> tuple[UNet, VQAutoencoder]:
    """Its U-Net and its autoencoder; `SafelightError`, one line, if the file is broken."""
    source, state = str(path), read_weights_file(path).state
    network, coders = (_behind(prefix, state) for prefix in (UNET, VAE))
    found = shapes.unet_config_of(network, source)
    config = replace(
        found,
        sample_size=_SIZE,
        self_attention=True,
        attention_heads=tuple(max(width // _HEAD, 1) for width in found.block_out_channels),
    )
    named = to_ours(compvis.unet_table(config), _apart(network, source), source)
    unet = filled(lambda: UNet(config), named, UNET_2D, source=source, dtype=dtype)
    vq = shapes.vq_config_of(coders, 1.0, source)
    named = to_ours(compvis.autoencoder_table(len(vq.block_out_channels)), coders, source)
    table = autoencoder.VQ
    vae = filled(lambda: VQAutoencoder(vq), named, table, source=source, dtype=dtype)
    return unet.to(device), vae.to(device)


def _behind(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {
        key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
    }


def _apart(state: Mapping[str, Tensor], source: str) -> State:
    """The tensors with queries, keys and values apart, under diffusers' names of attention.

    CompVis' U-Nets without context keep them in one convolution, in which each head's three follow
    one another.
    """
    named: State = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        block, _, name = layer.rpartition(".")
        if f"{block}.qkv.weight" not in state:
            named[key] = tensor
        elif name == "qkv":
            for part, own in zip("qkv", _heads_apart(tensor, key, source), strict=True):
                named[f"{block}.to_{part}.{kind}"] = own
        else:
            named[f"{block}.{_ATTENTION.get(name, name)}.{kind}"] = _linear(tensor)
    return named


def _heads_apart(tensor: Tensor, key: str, source: str) -> tuple[Tensor, ...]:
    if tensor.ndim < 1 or tensor.shape[0] % (3 * _HEAD):
        raise SafelightError(
            f"{source} has {key} of shape {tuple(tensor.shape)}; expected heads of {_HEAD} "
            "channels, each with its query, key and value."
        )
    whole = _linear(tensor)
    heads = whole.reshape(-1, 3, _HEAD, *whole.shape[1:])
    queries, keys, values = (
        part.reshape(-1, *whole.shape[1:]).contiguous() for part in heads.unbind(dim=1)
    )
    return queries, keys, values


def _linear(tensor: Tensor) -> Tensor:
    """A convolution of one pixel, or of one place, as a linear layer."""
    return tensor.flatten(1) if tensor.ndim > 1 and tensor.shape[2:].numel() == 1 else tensor
