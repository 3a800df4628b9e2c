"""What steers a network beside the caption: pictures that go along in a batch, as conditioning."""

from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from safelight.types import Conditioning

Beside = Callable[[Conditioning, Tensor], Conditioning]
"""Puts an extra of a batch into a conditioning."""


def as_hint(cond: Conditioning, pixels: Float[Tensor, "b c h w"]) -> Conditioning:
    """A conditioning with one more hint, of a picture in [-1, 1]."""
    return replace(cond, hints=(*cond.hints, (pixels + 1) / 2))
