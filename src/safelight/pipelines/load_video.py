"""From a name or a folder to a pipeline of clips."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from safelight.checkpoints.components import Reading, read_unet, weights_files
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.folder import DEFAULTS, Defaults, Folder
from safelight.checkpoints.model import read_model
from safelight.checkpoints.motion import motion_files, read_motion
from safelight.checkpoints.video_layers import holds_layers, read_video_layers
from safelight.config import from_dict, read_json
from safelight.engine.names import Storage
from safelight.errors import SafelightError
from safelight.models.motion import with_motion
from safelight.models.video import FrameUNet
from safelight.pipelines.adapting import put_in
from safelight.pipelines.clip_manifest import UsedMotion
from safelight.pipelines.find import DEFAULT, VIDEO, lasting_name
from safelight.pipelines.hub import find_control, find_or_fetch, find_part
from safelight.pipelines.kind import Kind, kind_of
from safelight.pipelines.load import choose_device, warn_of_emulation
from safelight.pipelines.manifest import UsedAdapter
from safelight.pipelines.storing import reading_precision, store_networks
from safelight.pipelines.video import VideoPipeline

_BUNDLED = {f"{DEFAULT}-{VIDEO}": DEFAULT}  # the name of the video model to the folder that has it


def load_video(
    path_or_name: str | Path = DEFAULT,
    *,
    motion_module: str | Path | None = None,
    adapters: Mapping[str | Path, float] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "auto",
    offload: bool = False,
    storage: Storage | None = None,
    offline: bool = False,
) -> VideoPipeline:
    """Loads a model that makes clips.

    Args:
        path_or_name: as for `safelight.load`: Stable Video Diffusion, a video model that safelight
            trained, a model of pictures whose folder brings a video U-Net (`video`), as the bundled
            one does, which is also called `default-video`, or with a `motion_module` any model of
            pictures.
        motion_module: the motion module of AnimateDiff, a folder in diffusers' layout, a file in
            that of its authors, or a name of the hub.
        adapters: files of LoRA and its kin for that model of pictures, each with its strength.
        dtype: of the weights and the networks.
        device: as for `safelight.load`.
        offload: keep each network in the CPU's memory until it works.
        storage: in how many bytes the U-Net and the towers hold their weights, as for
            `safelight.load`; convolutions along the frames compute with theirs as they are.
        offline: nothing is fetched.

    Raises:
        SafelightError: there is no such model, its files are not what they should be, it does not
            make clips, or the motion module is for another.
    """
    device = choose_device(device)
    home = "cpu" if offload else device
    named = _BUNDLED.get(str(path_or_name), str(path_or_name))
    found = find_or_fetch(named, offline=offline)
    warn_of_emulation(device, dtype)
    precision = reading_precision(found, storage, dtype)
    name, reading = lasting_name(named), Reading(precision, home)
    folder = read_model(found, dtype=precision, device=home)
    if motion_module is None:
        folder = _with_own(folder, found / VIDEO, reading)
    if storage is not None and motion_module is None:
        store_networks(folder, storage, dtype)
    used: list[UsedAdapter] = []
    for file, strength in (adapters or {}).items():
        used.append(put_in(folder, used, find_part(file, offline=offline), strength))
    motion = None
    if motion_module is not None:
        if isinstance(folder.unet, FrameUNet):
            raise SafelightError(f"{name} makes clips by itself; leave the motion module out.")
        folder, motion = _moving(folder, name, motion_module, reading, offline=offline)
        if storage is not None:
            store_networks(folder, storage, dtype)
    return VideoPipeline(
        folder,
        name,
        dtype=dtype,
        device=device,
        offload=offload and device != "cpu",
        storage=storage,
        motion=motion,
        adapters=used,
    )


def _with_own(folder: Folder, path: Path, reading: Reading) -> Folder:
    """A model of pictures with the video U-Net that its folder brings, whole or as layers beside
    its own, and how that is best used; any other as it is.
    """
    if isinstance(folder.unet, FrameUNet) or not path.is_dir():
        return folder
    defaults = path / DEFAULTS
    layers = holds_layers(path)
    own = weights_files(path)
    return replace(
        folder,
        unet=read_video_layers(path, folder.unet, reading) if layers else read_unet(path, reading),
        defaults=from_dict(Defaults, read_json(defaults), str(defaults))
        if defaults.is_file()
        else folder.defaults,
        files={**folder.files, VIDEO if layers else "unet": own},
    )


def _moving(
    folder: Folder, name: str, motion_module: str | Path, reading: Reading, *, offline: bool
) -> tuple[Folder, UsedMotion]:
    """A model of pictures with a motion module; its noise schedule is that with which these were
    trained (arXiv 2307.04725, section 5.1: betas that rise linearly).
    """
    if kind_of(folder, name) != Kind():
        raise SafelightError(
            f"Motion modules go with models that make pictures of a prompt alone, such as Stable "
            f"Diffusion 1.x; {name} takes more."
        )
    path = find_control(motion_module, offline=offline)
    adapter = read_motion(path, reading)
    try:
        unet = with_motion(folder.unet, adapter)
    except ValueError as error:
        raise SafelightError(f"{path} does not go with {name}: {error}") from error
    scheduler = replace(folder.scheduler, beta_schedule="linear")
    used = UsedMotion(lasting_name(str(motion_module)), sha256_of_files(motion_files(path)))
    return replace(folder, unet=unet, scheduler=scheduler), used
