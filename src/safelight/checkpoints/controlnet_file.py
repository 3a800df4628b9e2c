"""A ControlNet in one file: the original layout, read and written, and diffusers' names, read."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from safelight.checkpoints.components import Reading, check_layers, filled
from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.families import CONTROL
from safelight.checkpoints.files import State, write_state
from safelight.checkpoints.header import ENTRY, read_entry
from safelight.checkpoints.rules import from_ours, to_ours
from safelight.checkpoints.tables.any_unet import layers_of
from safelight.checkpoints.tables.controlnet import (
    CONTROLNET,
    blocks_of,
    controlnet_config_from_diffusers,
    controlnet_config_to_diffusers,
    original_table,
)
from safelight.checkpoints.tables.shapes import controlnet_config_of
from safelight.checkpoints.weights_file import WeightsFile
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNet, ControlNetConfig

_HINT = "input_hint_block.0.weight"
_THEIR_HINT = "controlnet_cond_embedding.conv_in.weight"


def controlnet_from_file(opened: WeightsFile, source: str, reading: Reading) -> ControlNet:
    """The ControlNet in an opened file, whichever of the two layouts it is in, with the model that
    it steers or without.

    The layout and the shape are told by the tensors; what leaves no trace is as was published, but
    for files of ours, which say all in their header.

    Raises `SafelightError`, one line, if there is none, or it is broken.
    """
    state = original_names(opened.state, source)
    said, where = read_entry(opened.metadata, source)
    if said is None:
        config = controlnet_config_of(state, source)
    else:
        config = controlnet_config_from_diffusers(said, where)
    check_layers((*layers_of(config.unet), len(config.hint_block_channels)), state, source)
    return controlnet_of(config, state, source, reading)


def controlnet_of(
    config: ControlNetConfig, state: Mapping[str, Tensor], source: str, reading: Reading
) -> ControlNet:
    """The ControlNet of that shape with exactly these tensors, which have the original names."""
    named = to_ours(original_table(config), state, source)
    control = filled(
        lambda: ControlNet(config), named, CONTROLNET, source=source, dtype=reading.dtype
    )
    return control.to(reading.device)


def is_controlnet(state: Mapping[str, Tensor]) -> bool:
    """Whether a file holds a ControlNet, in either layout, by the names of its tensors."""
    return any(mark in state for mark in (_HINT, CONTROL + _HINT, _THEIR_HINT))


def original_names(state: Mapping[str, Tensor], source: str) -> State:
    """The tensors of the ControlNet in a file, in the original layout and without its prefix.

    Raises `SafelightError` that says what the file is if it holds none.
    """
    if any(key.startswith(CONTROL) for key in state):
        state = {
            k.removeprefix(CONTROL): part for k, part in state.items() if k.startswith(CONTROL)
        }
    if _HINT in state:
        return dict(state)
    if _THEIR_HINT not in state:
        raise SafelightError(f"{source} is {describe_state(state)}; expected a ControlNet.")
    try:
        return from_ours(original_table(blocks_of(state)), state)
    except (KeyError, ValueError) as error:
        raise SafelightError(
            f"{source} is no ControlNet of Stable Diffusion's family that is whole ({error})."
        ) from error


def write_controlnet_file(
    path: Path, control: ControlNet, *, dtype: torch.dtype = torch.float32
) -> None:
    """Writes a ControlNet as one safetensors file in the original layout, as `control_v11*` have
    it, with its configuration as a text entry of the header.
    """
    theirs = from_ours(CONTROLNET, control.state_dict())
    state = {
        CONTROL + name: tensor.detach().to("cpu", dtype)
        for name, tensor in from_ours(original_table(control.shape), theirs).items()
    }
    header = json.dumps(controlnet_config_to_diffusers(control.shape))
    write_state(path, state, {ENTRY: header})
