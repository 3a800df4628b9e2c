"""One file of weights, opened by what it is and never by its name: safetensors or a pickle."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from safelight.checkpoints.files import State, check_few, check_is_file, read_metadata, read_state
from safelight.checkpoints.pickles import read_pickle
from safelight.errors import SafelightError

_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors library allows
_LONGEST_NAME = 1000
_MOST_ENTRIES = 3_000_000  # of a pickle's tables, as many as a pickle has instructions
_WRAPPERS = ("state_dict", "model_state_dict", "params_ema", "params")
"""Under which the programs that write pickles put the weights, beside their own state."""


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a file by name, its text entries, and its format."""

    state: State
    metadata: Mapping[str, str]
    format: str  # "safetensors" or "pickle"


def read_weights_file(path: Path, *, values: bool = True) -> WeightsFile:
    """Opens one file of weights in the precision of the file, mapped where that is possible.

    Without `values` a pickle's tensors need not have any, as `read_pickle` says.

    Raises `SafelightError`, one line, if it is missing, broken, hostile, or holds no tensors.
    """
    check_is_file(path)
    if is_safetensors(path):
        opened = WeightsFile(read_state(path), read_metadata(path), "safetensors")
    else:
        table = _unwrapped(read_pickle(path, values=values))
        opened = WeightsFile(_tensors(table, path), {}, "pickle")
    if not opened.state:
        raise SafelightError(f"{path} holds no tensors.")
    return opened


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON table, and that table."""
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return len(start) == 9 and start[8:] == b"{" and length <= _LONGEST_HEADER


def _unwrapped(root: object) -> Mapping[object, object]:
    if not isinstance(root, dict):
        raise SafelightError(
            f"A PyTorch file of weights should hold tensors by name, not {type(root).__name__}."
        )
    table = cast(dict[object, object], root)
    for name in _WRAPPERS:
        inner = table.get(name)
        if isinstance(inner, dict):
            return cast(dict[object, object], inner)
    return table


def _tensors(table: Mapping[object, object], path: Path) -> State:
    """The tensors of a table, and of the tables in it, by dotted names.

    Raises `SafelightError` for absurdly many or long ones: a pickle can hold one table under many
    names.
    """
    state: State = {}
    for number, (names, value) in enumerate(_entries(table)):
        if number > _MOST_ENTRIES:
            raise SafelightError(f"{path} holds more than {_MOST_ENTRIES:,} values.")
        if isinstance(value, Tensor):
            texts = [str(name) for name in names]
            if sum(map(len, texts)) > _LONGEST_NAME:
                raise SafelightError(f"{path} has a tensor of an absurdly long name.")
            state[".".join(texts)] = value
            check_few(len(state), path)
    return state


def _entries(table: Mapping[object, object]) -> Iterator[tuple[tuple[object, ...], object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            inside = cast(dict[object, object], value)
            yield from (((key, inner), part) for inner, part in inside.items())
        else:
            yield (key,), value
