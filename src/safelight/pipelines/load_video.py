"""From a name or a folder to a pipeline of clips."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from safelight.checkpoints.components import Reading
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.motion import motion_files, read_motion
from safelight.checkpoints.single_file import read_model
from safelight.errors import SafelightError
from safelight.models.motion import with_motion
from safelight.pipelines.adapting import put_in
from safelight.pipelines.clip_manifest import UsedMotion
from safelight.pipelines.find import lasting_name
from safelight.pipelines.hub import find_control, find_or_fetch, find_part
from safelight.pipelines.load import choose_device
from safelight.pipelines.manifest import UsedAdapter
from safelight.pipelines.video import VideoPipeline


def load_video(
    path_or_name: str | Path,
    *,
    motion_module: str | Path | None = None,
    adapters: Mapping[str | Path, float] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "auto",
    offload: bool = False,
    offline: bool = False,
) -> VideoPipeline:
    """Loads a model that makes clips.

    Args:
        path_or_name: as for `safelight.load`: Stable Video Diffusion, a video model that safelight
            trained, or with a `motion_module` a model of pictures.
        motion_module: the motion module of AnimateDiff, a folder in diffusers' layout, a file in
            that of its authors, or a name of the hub.
        adapters: files of LoRA and its kin for that model of pictures, each with its strength.
        dtype: of the weights and the networks.
        device: as for `safelight.load`.
        offload: keep each network in the CPU's memory until it works.
        offline: nothing is fetched.

    Raises:
        SafelightError: there is no such model, its files are not what they should be, it does not
            make clips, or the motion module is for another.
    """
    device = choose_device(device)
    home = "cpu" if offload else device
    folder = read_model(find_or_fetch(str(path_or_name), offline=offline), dtype=dtype, device=home)
    name, reading = lasting_name(str(path_or_name)), Reading(dtype, home)
    used: list[UsedAdapter] = []
    for file, strength in (adapters or {}).items():
        used.append(put_in(folder, used, find_part(file, offline=offline), strength))
    motion = None
    if motion_module is not None:
        folder, motion = _moving(folder, name, motion_module, reading, offline=offline)
    return VideoPipeline(
        folder,
        name,
        dtype=dtype,
        device=device,
        offload=offload and device != "cpu",
        motion=motion,
        adapters=used,
    )


def _moving(
    folder: Folder, name: str, motion_module: str | Path, reading: Reading, *, offline: bool
) -> tuple[Folder, UsedMotion]:
    """A model of pictures with a motion module; its noise schedule is that with which these were
    trained (arXiv 2307.04725, section 5.1: betas that rise linearly).
    """
    path = find_control(motion_module, offline=offline)
    adapter = read_motion(path, reading)
    try:
        unet = with_motion(folder.unet, adapter)
    except ValueError as error:
        raise SafelightError(f"{path} does not go with {name}: {error}") from error
    scheduler = replace(folder.scheduler, beta_schedule="linear")
    used = UsedMotion(lasting_name(str(motion_module)), sha256_of_files(motion_files(path)))
    return replace(folder, unet=unet, scheduler=scheduler), used
