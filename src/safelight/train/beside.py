"""What steers a network beside the caption: pictures that go along in a batch, as conditioning."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.types import Conditioning

Pixels = Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class Beside:
    """How an extra of a batch becomes a part of the conditioning, and how often it does not.

    Attributes:
        add: puts it into a conditioning.
        null: what takes its place where it is dropped, which is what guidance leads away from.
        dropout: how often that is, 0 to 1, on its own account.
    """

    add: Callable[[Conditioning, Tensor], Conditioning]
    null: Callable[[Tensor], Tensor] = torch.zeros_like
    dropout: float = 0.0

    def to(self, cond: Conditioning, value: Pixels, chances: Float[Tensor, " b"]) -> Conditioning:
        """A conditioning with `value` in it, or its null where the chance is below `dropout`."""
        if self.dropout:
            rows = (chances < self.dropout).reshape(-1, *[1] * (value.ndim - 1))
            value = torch.where(rows, self.null(value), value)
        return self.add(cond, value)


def as_hint(cond: Conditioning, pixels: Pixels) -> Conditioning:
    """A conditioning with one more hint, of a picture in [-1, 1]."""
    return replace(cond, hints=(*cond.hints, (pixels + 1) / 2))
