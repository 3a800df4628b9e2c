"""Weights that a training adds to a network which has learned already, and how fast they learn."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Fresh:
    """A parameter that is new, or what of it is: its input channels (axis 1) from `first` on."""

    parameter: nn.Parameter
    first: int = 0

    def entries(self) -> Tensor:
        """A view of what is new."""
        return self.parameter.detach()[:, self.first :] if self.first else self.parameter.detach()

    def others(self) -> Tensor:
        """A view of what is not new."""
        return self.parameter.detach()[:, : self.first]


def fresh_in(module: nn.Module, former: nn.Module | None) -> list[Fresh]:
    """What of a network's weights a former one, from which it was made, had not: parameters by
    their names, and further input channels; all of them if there was none.
    """
    had = {} if former is None else dict(former.named_parameters())
    fresh: list[Fresh] = []
    for name, parameter in module.named_parameters():
        if name not in had:
            fresh.append(Fresh(parameter))
        elif parameter.shape != had[name].shape:
            fresh.append(Fresh(parameter, had[name].shape[1]))
    return fresh


@contextmanager
def alone(parts: Sequence[Fresh]) -> Generator[None]:
    """Of these parameters only what is new learns within: the rest has no gradient, and is
    afterwards what it was, though weights decay.
    """
    for part in parts:
        if part.parameter.grad is not None:
            part.parameter.grad[:, : part.first] = 0
    former = [part.others().clone() for part in parts]
    yield
    for part, before in zip(parts, former, strict=True):
        part.others().copy_(before)


@contextmanager
def at_rate(fresh: Sequence[Fresh], times: float) -> Generator[None]:
    """What changes of `fresh` within is multiplied by `times`.

    So an optimiser's step is at `times` its learning rate there, whatever the optimiser, and also
    where only a part of a parameter is new; it keeps no state of it.
    """
    if times == 1:
        yield
        return
    former = [new.entries().clone() for new in fresh]
    yield
    for new, before in zip(fresh, former, strict=True):
        entries = new.entries()
        entries.copy_(torch.lerp(before, entries, times))
