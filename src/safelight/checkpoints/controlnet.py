"""ControlNets and T2I-Adapters: a folder in diffusers' layout, or one file."""

from pathlib import Path

import torch

from safelight.checkpoints.components import (
    DIFFUSERS_STEM,
    Reading,
    Writing,
    part_config,
    read_part,
    write_part,
)
from safelight.checkpoints.control_lora import control_from_base, needs_base
from safelight.checkpoints.controlnet_file import (
    controlnet_from_file,
    is_controlnet,
    write_controlnet_file,
)
from safelight.checkpoints.inspection import names_of
from safelight.checkpoints.t2i_adapter import (
    adapter_from_file,
    is_adapter,
    read_adapter_folder,
    write_adapter,
    write_adapter_file,
)
from safelight.checkpoints.tables.any_unet import layers_of
from safelight.checkpoints.tables.controlnet import (
    CLASS,
    CONTROLNET,
    SMALL_CLASS,
    controlnet_config_from_diffusers,
    controlnet_config_to_diffusers,
)
from safelight.checkpoints.tables.t2i_adapter import CLASS as ADAPTER_CLASS
from safelight.checkpoints.weights_file import read_weights_file
from safelight.config import read_json
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNet
from safelight.models.t2i_adapter import T2IAdapter
from safelight.models.unet import UNet


def read_control(
    path: Path, base: UNet | None = None, reading: Reading | None = None
) -> ControlNet | T2IAdapter:
    """What steers a U-Net by a picture: from a diffusers folder, or from one file, which is told by
    its tensors.

    `base` is the U-Net that it steers, without adapters; a Control-LoRA, and a ControlNet kept as a
    difference, are made of it.

    Raises `SafelightError`, one line, if there is none, or it is broken.
    """
    reading = reading or Reading()
    if path.is_dir():
        kind = part_config(path, CLASS, SMALL_CLASS, ADAPTER_CLASS).get("_class_name")
        return (read_adapter_folder if kind == ADAPTER_CLASS else read_controlnet)(path, reading)
    opened, source = read_weights_file(path), str(path)
    if needs_base(opened.state):
        return control_from_base(opened.state, base, source, reading)
    if is_adapter(opened.state):
        return adapter_from_file(opened, source, reading)
    return controlnet_from_file(opened, source, reading)


def write_control(path: Path, control: ControlNet | T2IAdapter, dtype: torch.dtype) -> None:
    """Writes what steers a U-Net as one file, where the path ends in `.safetensors`, in the
    original layout, or as a folder in diffusers'.

    Raises `SafelightError` for one that has no original layout.
    """
    single = path.suffix == ".safetensors"
    if isinstance(control, T2IAdapter):
        if single:
            write_adapter_file(path, control, dtype=dtype)
        else:
            write_adapter(path, control, Writing(dtype))
    elif single and control.shape.steered_channels is not None:
        raise SafelightError(
            "A small ControlNet, of other channels than the U-Net that it steers, has no original "
            "layout; give a folder to write it to."
        )
    elif single:
        write_controlnet_file(path, control, dtype=dtype)
    else:
        write_controlnet(path, control, Writing(dtype))


def is_control(path: Path) -> bool:
    """Whether a folder or a file is what `read_control` reads, by its class or its names; errors
    as `inspect`.
    """
    if path.is_dir():
        config = path / "config.json"
        kind = read_json(config).get("_class_name") if config.is_file() else None
        return kind in (CLASS, SMALL_CLASS, ADAPTER_CLASS)
    if not path.is_file():
        return False
    state = names_of(path)[0]
    return needs_base(state) or is_adapter(state) or is_controlnet(state)


def read_controlnet(folder: Path, reading: Reading | None = None) -> ControlNet:
    """The ControlNet in `folder`."""
    values = part_config(folder, CLASS, SMALL_CLASS)
    config = controlnet_config_from_diffusers(values, str(folder / "config.json"))
    layers = (*layers_of(config.unet), len(config.hint_block_channels))
    return read_part(
        folder, DIFFUSERS_STEM, lambda: ControlNet(config), CONTROLNET, reading or Reading(), layers
    )


def write_controlnet(folder: Path, control: ControlNet, writing: Writing | None = None) -> None:
    """Writes a ControlNet as diffusers' `ControlNetModel`; one whose channels are not those of the
    U-Net that it steers under a name of ours, since diffusers has no such.
    """
    values = controlnet_config_to_diffusers(control.shape)
    write_part(folder, DIFFUSERS_STEM, control, values, CONTROLNET, writing or Writing())
