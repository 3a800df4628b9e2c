"""Models that hold their weights in fewer bytes than they compute with."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from safelight.checkpoints.adapters import networks
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.model import base_of, read_model
from safelight.engine.names import Storage
from safelight.nn.stored import store
from safelight.pipelines.precisions import precision_of

_STORED = {"int8": torch.int8, "float16": torch.float16, "bfloat16": torch.bfloat16}


def read_stored(path: Path, storage: Storage, dtype: torch.dtype, device: str) -> Folder:
    """A model whose U-Net and text towers hold their weights as `storage` says and compute in
    `dtype`, as all the rest does; errors as `read_model`.

    What a file holds in the same precision stays mapped from it, and is the same weights.
    """
    folder = read_model(path, dtype=_own_precision(path), device=device)
    for network in networks(folder).values():
        store(network, _STORED[storage], dtype)
    for module in _others(folder):
        module.to(dtype)
    return folder


def _own_precision(path: Path) -> torch.dtype:
    """The precision of a model's file; float32 where a LoRA comes into the weights as they are
    read, which would be rounded else.
    """
    return precision_of(path) if base_of(path) == path else torch.float32


def _others(folder: Folder) -> Iterator[nn.Module]:
    yield folder.autoencoder
    if folder.vision is not None:
        yield folder.vision.tower
    beside = folder.beside
    for part in (beside.layout, beside.adapter):
        if isinstance(part, nn.Module):
            yield part
