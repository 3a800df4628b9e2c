"""Which pictures make up batch number `step`: a pure function of the seed and the step."""

import bisect
import functools
from collections.abc import Sequence
from typing import cast

import torch

from safelight import rng


class BatchOrder:
    """Shuffled full batches out of groups (one per shape) that must not be mixed in a batch.

    A group of `group_sizes[g]` members is an endless stream: all of them in one order, then in
    another, and so on. A batch is the next `batch_size` of one group's stream, so it may span two
    epochs, and each member comes exactly once per epoch of its group. Groups take turns in
    proportion to their sizes.

    Raises `ValueError` for an empty group or a batch size below 1.
    """

    def __init__(self, group_sizes: Sequence[int], batch_size: int, seed: int):
        if batch_size < 1:
            raise ValueError(f"batch_size should be at least 1, got {batch_size}.")
        if not group_sizes or min(group_sizes) < 1:
            raise ValueError(f"Every group should have members, got {list(group_sizes)}.")
        self._sizes = tuple(group_sizes)
        self._batch_size = batch_size
        self._seed = seed
        # An order is needed for as long as its group's epoch lasts; the caches hold a few for each.
        self._shuffled = functools.lru_cache(maxsize=2 * len(group_sizes) + 8)(self._shuffle)
        self._turns = functools.lru_cache(maxsize=4)(self._take_turns)

    @property
    def steps_per_epoch(self) -> float:
        """Batches in which every member comes once."""
        return sum(self._sizes) / self._batch_size

    def at(self, step: int) -> tuple[int, list[tuple[int, int]]]:
        """The group of batch `step`, and the batch's members, each with its epoch.

        Raises `ValueError` for a negative step.
        """
        if step < 0:
            raise ValueError(f"step should be at least 0, got {step}.")
        late = (step + 1 + len(self._sizes)) * self._batch_size // sum(self._sizes) + 1
        epoch = bisect.bisect_right(range(late + 1), step, key=self._batches_before) - 1
        group, number = self._turns(epoch)[step - self._batches_before(epoch)]
        size = self._sizes[group]
        members: list[tuple[int, int]] = []
        for place in range(number * self._batch_size, (number + 1) * self._batch_size):
            own_epoch, rank = divmod(place, size)
            members.append((self._shuffled(group, own_epoch)[rank], own_epoch))
        return group, members

    def _batches_before(self, epoch: int) -> int:
        return sum(epoch * size // self._batch_size for size in self._sizes)

    def _take_turns(self, epoch: int) -> list[tuple[int, int]]:
        turns = [
            (group, number)
            for group, size in enumerate(self._sizes)
            for number in range(
                epoch * size // self._batch_size, (epoch + 1) * size // self._batch_size
            )
        ]
        generator = rng.generator_for(self._seed, _TURNS, epoch)
        return [turns[i] for i in _permutation(len(turns), generator)]

    def _shuffle(self, group: int, epoch: int) -> list[int]:
        generator = rng.generator_for(self._seed, _ORDER, group, epoch)
        return _permutation(self._sizes[group], generator)


def _permutation(n: int, generator: torch.Generator) -> list[int]:
    return cast(list[int], torch.randperm(n, generator=generator).tolist())


_ORDER, _TURNS = 1, 2  # streams of random numbers under the seed
