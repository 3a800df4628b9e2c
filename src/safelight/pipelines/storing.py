"""Models that hold their weights in fewer bytes than they compute with."""

from pathlib import Path

import torch

from safelight.checkpoints.adapters import networks
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.model import base_of
from safelight.config import near
from safelight.engine.names import Storage
from safelight.errors import SafelightError
from safelight.nn.stored import store
from safelight.pipelines.precisions import precision_of

_STORED: dict[str, torch.dtype] = {
    "int8": torch.int8,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def reading_precision(path: Path, storage: Storage | None, dtype: torch.dtype) -> torch.dtype:
    """The precision in which a model is read that computes in `dtype`: where it is stored, that of
    its file, so that what is held in the same one stays mapped from it; float32 where a LoRA comes
    into the weights as they are read, which would be rounded else.

    Raises `SafelightError` for a storage of another name, and as `inspect`.
    """
    if storage is None:
        return dtype
    if storage not in _STORED:
        raise SafelightError(f"Unknown storage {storage!r}. {near(storage, _STORED)}")
    return precision_of(path) if base_of(path) == path else torch.float32


def store_networks(folder: Folder, storage: Storage, dtype: torch.dtype) -> None:
    """Lets the U-Net and the towers of a model hold their weights as `storage` says and compute in
    `dtype`, as all the rest does.
    """
    for network in networks(folder).values():
        store(network, _STORED[storage], dtype)
    if folder.vision is not None:
        store(folder.vision.tower, _STORED[storage], dtype)
    folder.autoencoder.to(dtype)
    for part in (folder.beside.layout, folder.beside.adapter):
        if part is not None:
            part.to(dtype)
