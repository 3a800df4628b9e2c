"""A model in whichever form it is: a diffusers folder, one file, or a LoRA that stands on another.

The last is what a distillation leaves that trains a LoRA: its own folder holds the LoRA, the
scheduler and `safelight.json`, and `base.json` says where the model is that it was made for.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from safelight.checkpoints.adapters import networks, read_adapter
from safelight.checkpoints.atomic import replacing_folder, write_text
from safelight.checkpoints.folder import DEFAULTS, INDEX, LORA, Defaults, Folder, read_folder
from safelight.checkpoints.lora_file import LORA_FILE, Layout, write_lora
from safelight.checkpoints.scheduler_files import read_scheduler, write_scheduler
from safelight.checkpoints.single_file import read_single_file
from safelight.config import from_dict, read_json, to_dict
from safelight.errors import SafelightError
from safelight.nn.deltas import LowRank
from safelight.nn.lora import fuse, inject

BASE = "base.json"
"""The file by which a folder stands on another model."""


@dataclass(frozen=True)
class Based:
    """Where the model is that a folder stands on, from that folder: a folder or one file."""

    base: str


def read_model(
    path: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Folder:
    """Reads a text-to-image model from a diffusers folder, one file, or a LoRA on another model.

    Errors as `read_folder`, `read_single_file` and `read_adapter`, and `SafelightError` for a base
    that is not there, or stands on this model.
    """
    folders, found = _folders(path)
    if found.is_file():
        model = read_single_file(found, dtype=dtype, device=device)
    else:
        model = read_folder(found, dtype=dtype, device=device)
    for folder in reversed(folders):
        model = _upon(model, folder)
    return model


def is_model(path: Path) -> bool:
    """Whether a folder looks like a model: in diffusers' layout, or on another."""
    return (path / INDEX).is_file() or (path / BASE).is_file()


def base_of(path: Path) -> Path:
    """The folder or file of networks that a model is made of: itself, or what it stands on; errors
    as `read_model`.
    """
    return _folders(path)[1]


def write_upon(
    path: Path, base: Path, folder: Folder, deltas: Mapping[str, LowRank], layout: Layout
) -> None:
    """Writes what distinguishes a model from the one at `base`: a LoRA of its U-Net, by the paths
    of its layers, its scheduler, and how it is best used. A folder that was there before is
    replaced once the new one is whole.
    """
    with replacing_folder(path) as whole:
        write_lora(whole / LORA_FILE, deltas, layout)
        write_scheduler(whole / "scheduler", folder.scheduler)
        write_text(whole / DEFAULTS, _json(folder.defaults))
        write_text(whole / BASE, _json(_based(path, base)))


def copy_upon(source: Path, path: Path, base: Path) -> None:
    """Copies a folder that stands on a model to one that stands on the like of it at `base`."""
    with replacing_folder(path) as whole:
        shutil.copytree(source, whole, dirs_exist_ok=True)
        write_text(whole / BASE, _json(_based(path, base)))


def _based(path: Path, base: Path) -> Based:
    return Based(Path(os.path.relpath(base.resolve(), path.resolve())).as_posix())


def _json(config: object) -> str:
    return json.dumps(to_dict(config), indent=2) + "\n"


def _folders(path: Path) -> tuple[list[Path], Path]:
    """The folders that stand on one another, from the top, and what the last stands on."""
    folders: list[Path] = []
    while (path / BASE).is_file() and not (path / INDEX).is_file():
        folders.append(path)
        based = from_dict(Based, read_json(path / BASE), BASE)
        path = (path / based.base).resolve()
        if not path.exists():
            raise SafelightError(
                f"{folders[-1]} stands on the model {path}, which is not there; put that back, or "
                f"say in {folders[-1] / BASE} where it is."
            )
        if any(path == folder.resolve() for folder in folders):
            raise SafelightError(f"{folders[0]} stands on itself ({folders[-1] / BASE}).")
    return folders, path


def _upon(model: Folder, path: Path) -> Folder:
    """The model with the LoRA of a folder in its weights, used as that folder says."""
    lora, defaults = path / LORA_FILE, path / DEFAULTS
    deltas = read_adapter(lora, model).deltas
    for network, module in networks(model).items():
        inject(module, "base", deltas.get(network, {}))
        fuse(module)
    return replace(
        model,
        scheduler=read_scheduler(path / "scheduler"),
        defaults=from_dict(Defaults, read_json(defaults), DEFAULTS)
        if defaults.is_file()
        else model.defaults,
        files={**model.files, LORA: (*model.files.get(LORA, ()), lora)},
        upon=path.absolute(),
    )
