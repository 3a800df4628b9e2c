"""A model's folder written anew with the controls that it brings."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from safelight.checkpoints.atomic import replacing_folder
from safelight.checkpoints.conditions import IP_ADAPTER
from safelight.checkpoints.controlnet import read_control, write_control
from safelight.checkpoints.folder import Folder, write_folder
from safelight.pipelines.find import CONTROLS, own_controls
from safelight.pipelines.load import precision_of


def controls_of(found: Path) -> dict[str, Path]:
    """The controls that a model brings, by their kinds; none of a single file."""
    return own_controls(found) if found.is_dir() else {}


def adapter_of(found: Path) -> Path | None:
    """The folder of the IP-Adapter that a model brings, if it does."""
    folder = found / IP_ADAPTER
    return folder if folder.is_dir() else None


def write_with_controls(
    target: Path,
    model: Folder,
    controls: Mapping[str, Path],
    dtype: torch.dtype,
    controls_dtype: torch.dtype | None,
    adapter: Path | None = None,
) -> None:
    """Writes a model's folder and its controls in it, all or nothing.

    `controls_dtype` is the precision of the controls' weights, None for each one's own. `adapter`
    is the folder of an IP-Adapter that goes along as it is. Raises `SafelightError` for a control
    that is broken.
    """
    with replacing_folder(target) as whole:
        write_folder(whole, model, dtype=dtype)
        for kind, path in controls.items():
            precision = controls_dtype or precision_of(path)
            write_control(whole / CONTROLS / kind, read_control(path), precision)
        if adapter is not None and not (whole / IP_ADAPTER).exists():
            shutil.copytree(adapter, whole / IP_ADAPTER)
