"""What steers a network beside the caption in training: conditions, each dropped on its own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from safelight.train.task import Draws
from safelight.types import Batch, Conditioner, Conditioning, Inputs


@dataclass(frozen=True)
class Dropped:
    """A condition in training: what puts it in, and how often it is left out, so that guidance can
    lead away from its absence (Ho and Salimans 2022, arXiv 2207.12598, algorithm 1).
    """

    put: Conditioner
    dropout: float = 0.0


def put_beside(
    cond: Conditioning, batch: Batch, conditions: Mapping[str, Dropped], draws: Draws
) -> Conditioning:
    """A conditioning with every condition of a batch put in, in their order, each left out of its
    own rows.
    """
    for place, (name, condition) in enumerate(conditions.items()):
        chances = draws.uniform(_FIRST + place)
        cond = condition.put(cond, batch.beside[name], chances >= condition.dropout)
    return cond


def as_hint(cond: Conditioning, inputs: Inputs, kept: object = None) -> Conditioning:
    """A conditioning with one more hint of a ControlNet, of pictures in [-1, 1], which is never
    left out.
    """
    (pixels,) = inputs
    return replace(cond, hints=(*cond.hints, (pixels + 1) / 2))


_FIRST = 16  # of the streams of random numbers by which conditions are left out
