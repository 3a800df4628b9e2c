"""Modules compiled by torch's own compiler."""

from typing import cast

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from safelight.errors import SafelightError

_SHAPES = 64  # each of which is compiled for itself; beyond torch's own limit it refuses


class Inducted(nn.Module):
    """A module in whose place code that `torch.compile` made computes, without gradients, equal up
    to rounding.

    It is compiled at the first call with inputs of other shapes, which takes up to minutes. Its
    weights must not change any more.

    Raises `SafelightError` from a call if it cannot be compiled.
    """

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base
        self._run = torch.compile(base, fullgraph=True, dynamic=False, options={"freezing": True})

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the module gives."""
        limits = torch._dynamo.config.patch(recompile_limit=_SHAPES)  # pyright: ignore
        try:
            with limits:
                return cast(Tensor | tuple[Tensor, ...], self._run(*inputs))
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise SafelightError(
                f"torch {torch.__version__} does not compile this network ({reason[0]}); take the "
                'engine "torch".'
            ) from error
