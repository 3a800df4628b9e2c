"""T2I-Adapters: a folder in diffusers' layout, or one file of either kind of names."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from safelight.checkpoints.components import (
    DIFFUSERS_STEM,
    Reading,
    Writing,
    check_layers,
    filled,
    part_config,
    read_part,
    write_part,
)
from safelight.checkpoints.files import State, write_state
from safelight.checkpoints.header import ENTRY, read_entry
from safelight.checkpoints.rules import Rule, Table, from_ours, to_ours
from safelight.checkpoints.tables.t2i_adapter import (
    CLASS,
    T2I_ADAPTER,
    adapter_config_from_diffusers,
    adapter_config_of,
    adapter_config_to_diffusers,
    original_table,
    original_table_of,
)
from safelight.checkpoints.weights_file import WeightsFile
from safelight.models.t2i_adapter import T2IAdapter, T2IAdapterConfig

_PREFIX = "adapter."
_MARKS = ("body.0.block1.weight", "body.0.body.0.block1.weight")
_THEIR_MARK = "body.0.resnets.0.block1.weight"
_SAME = Table((Rule("{key}", "{key}"),))


def is_adapter(state: Mapping[str, Tensor]) -> bool:
    """Whether a file is a T2I-Adapter, by the names of its tensors."""
    return any(start + mark in state for start in ("", _PREFIX) for mark in (*_MARKS, _THEIR_MARK))


def adapter_from_file(opened: WeightsFile, source: str, reading: Reading) -> T2IAdapter:
    """The T2I-Adapter in an opened file; `SafelightError`, one line, if it is broken."""
    state = _our_names(opened.state, source)
    said, where = read_entry(opened.metadata, source)
    if said is None:
        config = adapter_config_of(state, source)
    else:
        config = adapter_config_from_diffusers(said, where)
    check_layers(_layers(config), state, source)
    adapter = filled(lambda: T2IAdapter(config), state, _SAME, source=source, dtype=reading.dtype)
    return adapter.to(reading.device)


def read_adapter_folder(folder: Path, reading: Reading) -> T2IAdapter:
    """The T2I-Adapter in `folder`, in diffusers' layout."""
    values = part_config(folder, CLASS)
    config = adapter_config_from_diffusers(values, str(folder / "config.json"))
    return read_part(
        folder, DIFFUSERS_STEM, lambda: T2IAdapter(config), T2I_ADAPTER, reading, _layers(config)
    )


def write_adapter(folder: Path, adapter: T2IAdapter, writing: Writing | None = None) -> None:
    """Writes a T2I-Adapter as diffusers' `T2IAdapter`."""
    values = adapter_config_to_diffusers(adapter.config)
    write_part(folder, DIFFUSERS_STEM, adapter, values, T2I_ADAPTER, writing or Writing())


def write_adapter_file(
    path: Path, adapter: T2IAdapter, *, dtype: torch.dtype = torch.float32
) -> None:
    """Writes a T2I-Adapter as one safetensors file in TencentARC's own names, with its
    configuration as a text entry of the header.
    """
    named = from_ours(original_table(adapter.config), adapter.state_dict())
    state = {name: tensor.detach().to("cpu", dtype) for name, tensor in named.items()}
    write_state(path, state, {ENTRY: json.dumps(adapter_config_to_diffusers(adapter.config))})


def _our_names(state: Mapping[str, Tensor], source: str) -> State:
    if any(key.startswith(_PREFIX) for key in state):
        state = {key.removeprefix(_PREFIX): tensor for key, tensor in state.items()}
    return dict(state) if _THEIR_MARK in state else to_ours(original_table_of(state), state, source)


def _layers(config: T2IAdapterConfig) -> tuple[int, ...]:
    return (config.layers_per_block,) * len(config.block_out_channels)
