"""The features of a T2I-Adapter computed once a run, since they depend on the hint alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from safelight.models.t2i_adapter import T2IAdapter
from safelight.types import Conditioning

_KEPT = 32  # hints: of each window of a big picture another


class KeptFeatures:
    """An adapter that remembers the features of its latest hints.

    A hint is known by its values, for batches are put together anew in each step; the same hint
    gives the same features to the bit, of the same rows. Where gradients flow nothing is kept. An
    adapter whose weights change takes a new one of these.
    """

    def __init__(self, adapter: T2IAdapter):
        self._adapter = adapter
        self._known: list[tuple[Tensor, Sequence[Tensor]]] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning, hint: Tensor) -> Sequence[Tensor]:
        """The features of `hint` in the precision of `x`."""
        hint = hint.to(x)
        if torch.is_grad_enabled():
            return self._adapter(hint)
        for known, features in self._known:
            if known.dtype == hint.dtype and torch.equal(known, hint):
                return features
        features = self._adapter(hint)
        self._known = [(hint, features), *self._known[: _KEPT - 1]]
        return features
