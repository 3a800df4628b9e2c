"""Gradient checkpointing: activations recomputed in the backward pass instead of kept."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

P = ParamSpec("P")
R = TypeVar("R")


def recomputed(block: Callable[P, R], on: bool) -> Callable[P, R]:
    """`block`, keeping only its inputs for the backward pass if `on` (Chen et al. 2016)."""
    if not (on and torch.is_grad_enabled()):
        return block

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, checkpoint(block, *args, use_reentrant=False, **kwargs))

    return run
