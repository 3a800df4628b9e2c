"""The training loop, for every objective: read it from top to bottom."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import Signals

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from safelight.errors import SafelightError
from safelight.train.checkpoint import FOLDER, Basis, to_go_on_from
from safelight.train.ema import Averages
from safelight.train.fresh import alone, at_rate
from safelight.train.optim import OPTIMISERS, OptimConfig, lr_at, prepare
from safelight.train.progress import Report, reporting
from safelight.train.signals import listening
from safelight.train.state import TrainState
from safelight.train.task import Draws, Phase, Task, batch_part
from safelight.train.window import Window
from safelight.types import Batch


@dataclass(frozen=True)
class LoopConfig:
    """How long a training runs and what it leaves behind. Intervals are in steps; 0 is never.

    `ema` is the decay of the averaged weights. The newest `keep` checkpoints are kept.
    """

    steps: int = 10_000
    batch_size: int = 32
    seed: int = 0
    ema: float = 0.999
    log_every: int = 20
    save_every: int = 1000
    preview_every: int = 1000
    keep: int = 2
    tensorboard: bool = True

    def __post_init__(self):
        leasts = {"steps": 1, "batch_size": 1, "log_every": 1, "keep": 1}
        leasts |= {"save_every": 0, "preview_every": 0}
        for name, least in leasts.items():
            if getattr(self, name) < least:
                raise SafelightError(
                    f"loop.{name} should be at least {least}, got {getattr(self, name)}."
                )
        if not 0 <= self.ema < 1:
            raise SafelightError(f"loop.ema should be in [0, 1), got {self.ema}.")


@dataclass(frozen=True)
class Preview:
    """A picture (3, h, w) in [-1, 1] of what has been learned, and measures for the log."""

    picture: Float[Tensor, "3 h w"]
    measures: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Hooks:
    """What the loop calls: previews and exports with the averaged weights in the networks."""

    preview: Callable[[int], Preview] | None = None
    export: Callable[[int], None] | None = None  # at each checkpoint and at the end
    begin: Callable[[], None] | None = None  # once nothing stands against training any more


@dataclass(frozen=True)
class Outcome:
    """How many steps are done, in how much time over all runs, and which signal stopped them."""

    step: int
    seconds: float
    stopped: Signals | None


BatchesFrom = Callable[[int], Iterator[Batch]]
"""Endless batches from a step on; the batch of a step is a pure function of that step."""


def train(
    task: Task,
    batches_from: BatchesFrom,
    config: LoopConfig,
    optim: OptimConfig,
    folder: Path,
    *,
    device: torch.device,
    resume: bool = False,
    hooks: Hooks | None = None,
    basis: Basis | None = None,
) -> Outcome:
    """Trains until `config.steps` steps are done or a signal comes, and leaves checkpoints, log and
    previews in `folder`.

    With `resume` the newest checkpoint that can be read is continued to the bit, or a new training
    begun if there is none. Checkpoints keep `basis`, and are continued on the same one only. SIGINT
    and SIGTERM save a checkpoint and end the training.

    Raises `SafelightError` if `folder` holds checkpoints and `resume` is not asked for, if they are
    of another network or basis, or if a loss or gradient is no longer finite: the last checkpoint,
    which is good, stays.
    """
    hooks = hooks or Hooks()
    state = _start(task, config, optim, device, basis or {})
    warnings = _resume(state, folder, resume=resume)
    if hooks.begin is not None:
        hooks.begin()
    left_off = state.step
    batches = batches_from(state.step)
    stopped: Signals | None = None
    with (
        listening() as wish,
        reporting(folder, config.steps, state.step, tensorboard=config.tensorboard) as report,
    ):
        for warning in warnings:
            report.say(warning)
        window = Window()
        while state.step < config.steps and stopped is None:
            lr = lr_at(optim, state.step, config.steps)
            began = time.monotonic()
            _step(task, next(batches), state, config, optim, lr, window)
            window.seconds += time.monotonic() - began
            state.seconds += time.monotonic() - began
            report.advance(state.step)

            stopped = wish.signal
            last = stopped is not None or state.step == config.steps
            if last or _is_due(state.step, config.save_every):
                window.check(folder, state.step)
                _save(state, config, folder, hooks)
            if last or _is_due(state.step, config.log_every):
                report.values(state.step, window.close(folder, state.step) | {"lr": lr})
            finished = state.step == config.steps and config.preview_every > 0
            if finished or _is_due(state.step, config.preview_every):
                _preview(state, hooks, report)
        if stopped is not None:
            report.say(f"{stopped.name}: saved at step {state.step:,}; --resume continues.")
    if state.step == left_off:  # finished before; but maybe cut off before the export
        _export(state, hooks)
    return Outcome(state.step, state.seconds, stopped)


def _start(
    task: Task, config: LoopConfig, optim: OptimConfig, device: torch.device, basis: Basis
) -> TrainState:
    if optim.fresh_lr != 1 and not any(phase.fresh for phase in task.phases.values()):
        raise SafelightError(
            f"optim.fresh_lr = {optim.fresh_lr} would change nothing, as no weights of this "
            "training are new beside others that have learned and go on; leave it out."
        )
    for phase in task.phases.values():
        for module in phase.modules.values():
            prepare(module, optim, device)
            module.train()
    optimisers = {
        name: OPTIMISERS[optim.optimizer](
            _parameters(phase), replace(optim, lr=optim.lr * phase.lr_scale)
        )
        for name, phase in task.phases.items()
        if _parameters(phase)
    }
    averaged = {
        f"{phase_name}.{name}": module
        for phase_name, phase in task.phases.items()
        if phase.averaged
        for name, module in phase.modules.items()
    }
    return TrainState(task.phases, optimisers, Averages(averaged, config.ema), device, basis)


def _resume(state: TrainState, folder: Path, *, resume: bool) -> list[str]:
    """Makes a state what the newest good checkpoint is, if any; what the user should know of it."""
    saved, warnings = to_go_on_from(folder, resume=resume)
    if saved is not None:
        state.load(saved)
    return warnings


def _step(
    task: Task,
    batch: Batch,
    state: TrainState,
    config: LoopConfig,
    optim: OptimConfig,
    lr: float,
    window: Window,
) -> None:
    """One change of the weights, by one batch worked off in `optim.accumulate` parts."""
    total = len(batch.captions)
    size = math.ceil(total / optim.accumulate)
    trained: set[str] = set()
    for first in range(0, total, size):
        part = batch_part(batch, first, size, state.device)
        count = len(part.captions)
        share = count / total
        draws = Draws(config.seed, state.step, total, first, count, state.device)
        for loss in task.losses(part, draws):
            (loss.total * share if share < 1 else loss.total).backward()
            window.add(loss, share)
            trained.add(loss.phase)
            if loss.restart:
                state.averages.updates = 0
    for name in sorted(trained):
        phase, optimiser = state.phases[name], state.optimisers[name]
        for group in optimiser.param_groups:
            group["lr"] = lr * phase.lr_scale
        with alone(phase.alone):
            gradients = [p.grad for p in _parameters(phase) if p.grad is not None]
            norm = get_total_norm(gradients)
            if optim.clip:
                clip_grads_with_norm_(_parameters(phase), optim.clip, norm)
            with at_rate(phase.fresh, optim.fresh_lr):
                optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        window.add_norm(name, norm)
    state.averages.update()
    state.step += 1
    window.steps += 1
    window.images += total


def _save(state: TrainState, config: LoopConfig, folder: Path, hooks: Hooks) -> None:
    state.save(folder / FOLDER, config.keep)
    _export(state, hooks)


def _export(state: TrainState, hooks: Hooks) -> None:
    if hooks.export is not None:
        with state.averages.applied():
            hooks.export(state.step)


def _preview(state: TrainState, hooks: Hooks, report: Report) -> None:
    if hooks.preview is None:
        return
    with state.averages.applied(), torch.no_grad():
        preview = hooks.preview(state.step)
    report.picture(state.step, preview.picture)
    if preview.measures:
        report.values(state.step, preview.measures)


def _parameters(phase: Phase) -> list[nn.Parameter]:
    return [
        parameter
        for module in phase.modules.values()
        for parameter in module.parameters()
        if parameter.requires_grad
    ]


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
