"""Modules compiled by torch's own compiler."""

from collections.abc import Callable
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from safelight.engine.exporting import exported, in_silence
from safelight.engine.store import Shapes
from safelight.errors import SafelightError

_Given: TypeAlias = Tensor | tuple[Tensor, ...]


class Inducted(nn.Module):
    """A module in whose place code that `torch.compile` made computes, in the precision of its
    weights, without gradients, equal up to rounding.

    It is compiled at the first call with inputs of other shapes, which takes up to minutes. Its
    weights must not change any more.

    Raises `SafelightError` from a call if it cannot be compiled.
    """

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base
        self._dtype = next((tensor.dtype for tensor in base.parameters()), torch.float32)
        self._runs: dict[Shapes, Callable[..., _Given]] = {}

    def forward(self, *inputs: Tensor) -> _Given:
        """What the module gives."""
        given = [x.to(self._dtype) for x in inputs]
        shapes = tuple(tuple(x.shape) for x in given)
        with torch.autocast(given[0].device.type, enabled=False), torch.no_grad():
            if shapes not in self._runs:
                self._runs[shapes] = self._compiled(given)
            return self._runs[shapes](*given)

    def _compiled(self, given: list[Tensor]) -> Callable[..., _Given]:
        try:
            graph = exported(self.base, given).module()  # what `torch.compile` sees no Python of
            run = torch.compile(graph, fullgraph=True, dynamic=False, options={"freezing": True})
            with in_silence():
                run(*given)
        except RuntimeError as error:  # of which all of the compiler's are
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise SafelightError(
                f"torch {torch.__version__} does not compile this network ({reason[0]}); take the "
                'engine "torch".'
            ) from error
        return cast(Callable[..., _Given], run)
