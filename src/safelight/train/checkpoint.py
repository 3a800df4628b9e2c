"""Checkpoints on disk: which one a training goes on from, and whether it stands on the same.

A checkpoint is a folder `step_0001000` with `weights.safetensors`, `averages.safetensors`,
`optimisers.safetensors` and `state.json`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from safelight.checkpoints.atomic import restore_folders
from safelight.checkpoints.files import read_state
from safelight.config import Value, read_json
from safelight.errors import SafelightError

Basis = Mapping[str, Value]
"""What a training stands on and does not change itself: hashes of frozen weights and of the
vocabulary, the shapes of the networks."""

FOLDER = "checkpoints"  # in a training's folder
NAMES = ("weights", "averages", "optimisers")  # of the tensor files
_PATTERN = re.compile(r"step_(\d{7,})")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds. Tensors are mapped from its files; `basis` is empty in one that was
    written before there were any.
    """

    path: Path
    step: int
    updates: int  # of the averages
    seconds: float
    basis: Basis
    weights: Mapping[str, Tensor]
    averages: Mapping[str, Tensor]
    optimisers: Mapping[str, Tensor]

    def check(self, basis: Basis) -> None:
        """Raises `SafelightError` that says what has changed, if something here stands on another
        basis. Only what both know of is compared.
        """
        changed = _differences(self.basis, cast(Basis, json.loads(json.dumps(basis))))
        if changed:
            raise SafelightError(
                f"{self.path} was trained on something else: {'; '.join(changed)}. Begin anew in "
                "another output folder, or bring back what it was trained on."
            )


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first."""
    found = [path for path in folder.glob("step_*") if _PATTERN.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """How many steps a checkpoint of that name has behind it."""
    return int(checkpoint.name.removeprefix("step_"))


def read_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint; `SafelightError` if one of its files is missing or broken."""
    facts = read_json(path / "state.json")
    step, updates, seconds = facts.get("step"), facts.get("updates"), facts.get("seconds")
    basis = facts.get("basis", {})
    if (
        not isinstance(step, int)
        or not isinstance(updates, int)
        or not isinstance(seconds, int | float)
        or not isinstance(basis, Mapping)
    ):
        raise SafelightError(f"{path / 'state.json'} should hold step, updates and seconds.")
    tensors = [read_state(path / f"{name}.safetensors") for name in NAMES]
    return Checkpoint(path, step, updates, float(seconds), basis, *tensors)


def to_go_on_from(folder: Path, *, resume: bool) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint in a training's folder that can be read, None if there is none at all;
    and a line for each newer one that cannot be.

    Raises `SafelightError` if there are checkpoints and `resume` is not asked for, or if not one of
    them can be read.
    """
    restore_folders(folder)
    restore_folders(folder / FOLDER)
    saved = checkpoints(folder / FOLDER)
    if saved and not resume:
        raise SafelightError(
            f"{folder} holds a training at step {step_of(saved[-1]):,}; "
            "continue it with --resume, or choose another output folder."
        )
    errors: list[SafelightError] = []
    for path in reversed(saved):
        try:
            return read_checkpoint(path), [
                f"{error} Going on from step {step_of(path):,} instead." for error in errors
            ]
        except SafelightError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return None, []


def _differences(saved: Basis, ours: Basis, at: str = "") -> list[str]:
    found: list[str] = []
    for key in saved.keys() & ours.keys():
        before, now, name = saved[key], ours[key], f"{at}.{key}" if at else key
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            found += _differences(before, now, name)
        elif before != now:
            found.append(f"{name} was {_short(before)}, is {_short(now)}")
    return sorted(found)


def _short(value: Value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text
