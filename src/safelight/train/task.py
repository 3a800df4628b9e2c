"""What a step function is to the training loop: modules in phases, and losses from a batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safelight import rng
from safelight.train.fresh import Fresh
from safelight.types import Batch


@dataclass(frozen=True)
class Phase:
    """Modules that one optimiser trains together; or that none does, where they only follow others
    and are kept in the checkpoints.

    `averaged` says whether their weights are averaged over time, and so are what is exported.
    """

    modules: Mapping[str, nn.Module]
    averaged: bool = True
    lr_scale: float = 1.0  # times the learning rate of the recipe
    fresh: Sequence[Fresh] = ()  # what of the weights is new beside others that have learned
    alone: Sequence[Fresh] = ()  # parameters of which what is new learns, and the rest stays


@dataclass(frozen=True)
class Loss:
    """What a phase minimises: a scalar with gradients, and detached scalars for the log.

    With `restart` the averages of all weights begin anew with this step, for an objective whose
    aim is another from here on.
    """

    phase: str
    total: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict[str, Tensor])
    restart: bool = False


@runtime_checkable
class Task(Protocol):
    """An objective. The loop knows nothing else of what it trains."""

    @property
    def phases(self) -> Mapping[str, Phase]:
        """Everything that is trained, by the name of its phase."""
        ...

    def losses(self, batch: Batch, draws: "Draws") -> Iterator[Loss]:
        """Yields one loss a phase; the loop runs its backward pass before it asks for the next.

        A phase that does not take part in this step yields nothing. Losses are means over the
        batch, so that a batch in parts gives the gradients of the whole.
        """
        ...


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step: a pure function of (seed, step, stream).

    When a step's batch is worked off in parts, each part draws for the whole batch of `total`
    images and keeps its rows `first` to `first + count`, so the parts see what the whole would see.
    """

    seed: int
    step: int
    total: int
    first: int
    count: int
    device: torch.device

    def generator(self, stream: int) -> torch.Generator:
        """The CPU generator of one stream of this step."""
        return rng.generator_for(self.seed, _STREAMS, self.step, stream)

    def rows(self, whole: Tensor) -> Tensor:
        """The rows of this part, on the training device."""
        return whole[self.first : self.first + self.count].to(self.device, non_blocking=True)

    def normal(self, shape: Sequence[int], stream: int) -> Tensor:
        """Standard normal noise, float32, of shape `shape` = (count, ...)."""
        return self.rows(torch.randn((self.total, *shape[1:]), generator=self.generator(stream)))

    def uniform(self, stream: int) -> Float[Tensor, " b"]:
        """One uniform number in [0, 1) for each image."""
        return self.rows(torch.rand(self.total, generator=self.generator(stream)))


def batch_part(batch: Batch, first: int, count: int, device: torch.device) -> Batch:
    """Some rows of a batch, on a device."""
    rows = slice(first, first + count)

    def part(tensor: Tensor) -> Tensor:
        return tensor[rows].to(device, non_blocking=True)

    return Batch(
        captions=batch.captions[rows],
        pixels=None if batch.pixels is None else part(batch.pixels),
        latents=None if batch.latents is None else part(batch.latents),
        clips=None if batch.clips is None else part(batch.clips),
        extras={name: part(tensor) for name, tensor in batch.extras.items()},
        beside={name: tuple(map(part, inputs)) for name, inputs in batch.beside.items()},
    )


_STREAMS = 0x7261  # keeps these draws apart from the order of the pictures under the same seed
