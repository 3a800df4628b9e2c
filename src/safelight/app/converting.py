"""A model's folder written anew with what it brings: controls, an IP-Adapter, a video U-Net."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from safelight.checkpoints.atomic import replacing_folder
from safelight.checkpoints.conditions import IP_ADAPTER
from safelight.checkpoints.controlnet import read_control, write_control
from safelight.checkpoints.folder import Folder, write_folder
from safelight.checkpoints.model import base_of
from safelight.checkpoints.video_layers import belong_to, holds_layers
from safelight.pipelines.find import CONTROLS, VIDEO, own_controls
from safelight.pipelines.precisions import precision_of


@dataclass(frozen=True)
class Brought:
    """What lies beside the parts of a model in its folder: its controls by their kinds, and the
    folders of its IP-Adapter and of its video U-Net, where it has them.
    """

    controls: Mapping[str, Path]
    adapter: Path | None
    video: Path | None

    @property
    def names(self) -> list[str]:
        """All of it in words."""
        folders = {"IP-Adapter": self.adapter, "video U-Net": self.video}
        return [*self.controls, *(name for name, folder in folders.items() if folder is not None)]


def brought_by(found: Path) -> Brought:
    """What a model brings, or the one that it stands on; nothing of a single file."""
    base = base_of(found)
    if not base.is_dir():
        return Brought({}, None, None)
    adapter, video = found / IP_ADAPTER, base / VIDEO
    return Brought(
        own_controls(base),
        adapter if adapter.is_dir() else None,
        video if video.is_dir() else None,
    )


def write_with(
    target: Path,
    model: Folder,
    brought: Brought,
    dtype: torch.dtype,
    controls_dtype: torch.dtype | None,
) -> bool:
    """Writes a model's folder and what it brings, all or nothing; whether all of it went along:
    layers along the frames do where they still belong to the U-Net that is written.

    `controls_dtype` is the precision of the controls' weights, None for each one's own. The rest
    goes along as it is. Raises `SafelightError` for a control that is broken.
    """
    video = brought.video
    if video is not None and holds_layers(video) and not belong_to(video, model.unet, dtype):
        video = None
    with replacing_folder(target) as whole:
        write_folder(whole, model, dtype=dtype)
        for kind, path in brought.controls.items():
            precision = controls_dtype or precision_of(path)
            write_control(whole / CONTROLS / kind, read_control(path), precision)
        if brought.adapter is not None and not (whole / IP_ADAPTER).exists():
            shutil.copytree(brought.adapter, whole / IP_ADAPTER)
        if video is not None:
            shutil.copytree(video, whole / VIDEO)
    return video == brought.video
