"""ControlNets: a folder in diffusers' layout with `config.json` and weights, or one file."""

from pathlib import Path

from safelight.checkpoints.components import (
    DIFFUSERS_STEM,
    Reading,
    Writing,
    layers_of,
    part_config,
    read_part,
    write_part,
)
from safelight.checkpoints.controlnet_file import controlnet_from_file
from safelight.checkpoints.tables.controlnet import (
    CLASS,
    CONTROLNET,
    SMALL_CLASS,
    controlnet_config_from_diffusers,
    controlnet_config_to_diffusers,
)
from safelight.checkpoints.weights_file import read_weights_file
from safelight.models.controlnet import ControlNet
from safelight.models.unet import UNet


def read_control(
    path: Path, base: UNet | None = None, reading: Reading | None = None
) -> ControlNet:
    """What steers a U-Net by a picture: from a diffusers folder, or from one file, which is told by
    its tensors.

    `base` is the U-Net that it steers.

    Raises `SafelightError`, one line, if there is none, or it is broken.
    """
    if path.is_dir():
        return read_controlnet(path, reading)
    return controlnet_from_file(read_weights_file(path), str(path), reading or Reading())


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
