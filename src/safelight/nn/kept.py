"""Layers that remember what they gave, for networks that are asked the same over and over."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_Given = tuple[Tensor | None, ...]


@dataclass
class _Answer:
    """An output, and the inputs of these values that it was asked for by."""

    output: Tensor
    aliases: list[_Given]


class Kept(nn.Module):
    """A layer that remembers its outputs for its latest `most` inputs, which it knows by being the
    same tensors, else by their values.

    For layers whose inputs change seldom, such as those that see the prompt or the time alone.
    Without gradients only; inputs must not be written into, and of a layer whose weights change a
    new one is to be made.
    """

    def __init__(self, base: nn.Module, most: int):
        super().__init__()
        self.base = base
        self._most = most
        self._known: list[_Answer] = []

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """What the layer gives."""
        for answer in self._known:  # all by identity first: values take a look at each number
            if any(_identical(alias, inputs) for alias in answer.aliases):
                return answer.output
        for answer in self._known:
            if _same(answer.aliases[0], inputs):
                answer.aliases = [inputs, *answer.aliases[: self._most - 1]]
                return answer.output
        output = self.base(*inputs)
        self._known = [_Answer(output, [inputs]), *self._known[: self._most - 1]]
        return output

    def forget(self) -> None:
        """Lets all that is remembered go, as where other inputs follow for good."""
        self._known.clear()


class KeptRows(nn.Module):
    """A layer of one input that remembers its outputs for the latest `most` rows: rows that it has
    seen are not computed again, whatever the batch.
    """

    def __init__(self, base: nn.Module, most: int):
        super().__init__()
        self.base = base
        self._most = most
        self._known: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives."""
        rows = [x[i : i + 1] for i in range(len(x))]
        new: list[Tensor] = []
        for row in rows:
            if self._remembered(row) is None and not any(_equal(other, row) for other in new):
                new.append(row)
        if new:
            outputs = self.base(torch.cat(new))
            copies = [  # a view would keep the whole batch
                (row.clone(), outputs[i : i + 1].clone()) for i, row in enumerate(new)
            ]
            self._known = [*reversed(copies), *self._known]
        found = [self._remembered(row) for row in rows]
        del self._known[self._most :]
        return torch.cat([output for output in found if output is not None])

    def _remembered(self, row: Tensor) -> Tensor | None:
        return next((output for known, output in self._known if _equal(known, row)), None)


def _identical(known: _Given, inputs: _Given) -> bool:
    return len(known) == len(inputs) and all(a is b for a, b in zip(known, inputs, strict=True))


def _same(known: Sequence[Tensor | None], inputs: Sequence[Tensor | None]) -> bool:
    return len(known) == len(inputs) and all(map(_equal, known, inputs))


def _equal(known: Tensor | None, given: Tensor | None) -> bool:
    if known is given:
        return True
    if known is None or given is None:
        return False
    return known.dtype == given.dtype and torch.equal(known, given)
