"""The precisions that pictures are made in."""

from pathlib import Path

import torch

from safelight.checkpoints.inspection import inspect
from safelight.config import near
from safelight.errors import SafelightError

_PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def precision_named(name: str) -> torch.dtype:
    """The dtype of a name such as "float32"; `SafelightError` for a name that is none."""
    if name not in _PRECISIONS:
        raise SafelightError(f"Unknown precision {name!r}. {near(name, _PRECISIONS)}")
    return _PRECISIONS[name]


def precision_of(path: Path) -> torch.dtype:
    """The precision of most weights at a path that pictures are made in, else float32; errors as
    `inspect`.
    """
    kept = (_PRECISIONS[name] for name in inspect(path).precisions if name in _PRECISIONS)
    return next(kept, torch.float32)
