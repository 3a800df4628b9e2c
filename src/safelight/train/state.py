"""Everything a training is at a step, on disk: written whole or not at all, read to the bit.

Random numbers and data order need no state: they are functions of the step.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from safelight.checkpoints.atomic import replacing_folder
from safelight.checkpoints.files import write_state
from safelight.config import Value
from safelight.errors import SafelightError
from safelight.train.checkpoint import Basis, Checkpoint, checkpoints
from safelight.train.ema import Averages
from safelight.train.task import Phase

_NAME = "step_{:07d}"


@dataclass
class TrainState:
    """The weights, their averages, the optimisers, how many steps are done, and on what basis."""

    phases: Mapping[str, Phase]
    optimisers: Mapping[str, torch.optim.Optimizer]
    averages: Averages
    device: torch.device
    basis: Basis = field(default_factory=dict[str, Value])
    step: int = 0
    seconds: float = 0.0  # spent training so far, over all runs
    _names: dict[Tensor, str] = field(init=False)

    def __post_init__(self):
        self._names = {
            parameter: f"{phase_name}.{name}.{key}"
            for phase_name, phase in self.phases.items()
            for name, module in phase.modules.items()
            for key, parameter in module.named_parameters()
        }

    def save(self, folder: Path, keep: int) -> Path:
        """Writes a checkpoint into `folder` and deletes all but the newest `keep` up to it; later
        ones, which could not be gone on from, too.
        """
        path = folder / _NAME.format(self.step)
        with replacing_folder(path) as temporary:
            write_state(temporary / "weights.safetensors", self._weights())
            write_state(temporary / "averages.safetensors", self.averages.tensors)
            write_state(temporary / "optimisers.safetensors", self._optimiser_tensors())
            facts = {
                "step": self.step,
                "updates": self.averages.updates,
                "seconds": round(self.seconds, 1),
                "basis": self.basis,
            }
            (temporary / "state.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        others = checkpoints(folder)
        place = others.index(path)
        for other in (*others[: max(place + 1 - max(keep, 1), 0)], *others[place + 1 :]):
            shutil.rmtree(other)
        return path

    @torch.no_grad()
    def load(self, saved: Checkpoint) -> None:
        """Becomes what `save` wrote, in place.

        Raises `SafelightError` if the checkpoint is of another network or on another basis.
        """
        saved.check(self.basis)
        _copy(self._weights(), saved.weights, saved.path)
        _copy(self.averages.tensors, saved.averages, saved.path)
        self._load_optimisers(saved.optimisers, saved.path)
        self.step, self.averages.updates = saved.step, saved.updates
        self.seconds = saved.seconds

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"{phase_name}.{name}.{key}": tensor
            for phase_name, phase in self.phases.items()
            for name, module in phase.modules.items()
            for key, tensor in module.state_dict().items()
        }

    def _optimiser_tensors(self) -> dict[str, Tensor]:
        return {
            f"{self._names[parameter]}/{key}": value
            for optimiser in self.optimisers.values()
            for parameter, values in optimiser.state.items()
            for key, value in values.items()
        }

    def _load_optimisers(self, saved: Mapping[str, Tensor], path: Path) -> None:
        left_over = set(saved)
        for optimiser in self.optimisers.values():
            optimiser.state.clear()
            for parameter in (p for group in optimiser.param_groups for p in group["params"]):
                prefix = f"{self._names[parameter]}/"
                own = {key: saved[key] for key in saved.keys() & _moment_keys(prefix)}
                left_over -= own.keys()
                if own:
                    optimiser.state[parameter] = {
                        key.removeprefix(prefix): _like(tensor, parameter)
                        for key, tensor in own.items()
                    }
        if left_over:
            raise SafelightError(
                f"{path} is of another training: nothing here takes {min(left_over)!r}. "
                "Choose another output folder, or the recipe that wrote this one."
            )


def _moment_keys(prefix: str) -> set[str]:
    return {prefix + key for key in ("step", "exp_avg", "exp_avg_sq")}


def _like(saved: Tensor, parameter: nn.Parameter) -> Tensor:
    """A moment in the device and memory layout that the fused optimiser wants."""
    if saved.ndim == 0:  # the step count
        return saved.to(parameter.device, copy=True)
    moment = torch.empty_like(parameter, memory_format=torch.preserve_format)
    return moment.copy_(saved)


def _copy(ours: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    wrong = sorted(
        name
        for name in ours.keys() | saved.keys()
        if name not in ours or name not in saved or ours[name].shape != saved[name].shape
    )
    if wrong:
        raise SafelightError(
            f"{path} is of another network: {len(wrong)} tensors differ, such as {wrong[0]!r}. "
            "Choose another output folder, or the recipe that wrote this one."
        )
    for name, tensor in ours.items():
        tensor.copy_(saved[name])
