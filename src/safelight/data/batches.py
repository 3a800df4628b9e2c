"""Training batches of pictures, each a pure function of (seed, step), and reading them ahead."""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from safelight.data.buckets import cut
from safelight.data.config import DataConfig
from safelight.data.draws import Draws
from safelight.data.folders import PictureFolder, Skipped
from safelight.data.groups import Group, grouped
from safelight.data.memory import Kept
from safelight.data.order import BatchOrder
from safelight.errors import SafelightError
from safelight.pictures import Levels, Size, UnreadablePictureError, decode, stack_pixels
from safelight.types import Batch

T = TypeVar("T")


class PictureBatches:
    """Batches of pictures with captions; `batch(step)` depends on the seed and the step alone.

    Decoded pictures stay in memory, at the size that training needs, up to `config.cache_bytes`;
    the rest is decoded anew each time. A picture that turns out to be unreadable is replaced by the
    next readable one of the same shape, and told of in `skipped`. Several threads may ask for
    batches.
    """

    def __init__(self, folder: PictureFolder, config: DataConfig, batch_size: int):
        self._config = config
        self._colours = config.colours
        self._folder = folder
        self._groups = grouped(folder, config)
        sizes = [len(group.items) for group in self._groups]
        self._order = BatchOrder(sizes, batch_size, config.seed)
        self._kept = Kept[int, Levels](config.cache_bytes)
        self._skipped: dict[int, Skipped] = {}

    @property
    def steps_per_epoch(self) -> float:
        """Batches in which every picture comes once (or `repeats` times)."""
        return self._order.steps_per_epoch

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The pictures that turned out to be unreadable so far."""
        return tuple(self._skipped.values())

    def batch(self, step: int) -> Batch:
        """Batch number `step`, counted from 0: captions, and pixels (b, 3, h, w) in [-1, 1].

        `extras["item"]` holds each picture's index in the folder, int64 (b,).

        Raises `SafelightError` if no picture of the batch's shape can be read.
        """
        number, members = self._order.at(step)
        group = self._groups[number]
        rows: list[Levels] = []
        captions: list[str] = []
        indices: list[int] = []
        for member, epoch in members:
            draws = Draws(self._config, epoch, group.slots[member])
            index, levels = self._readable(group, member)
            rows.append(cut(levels, group.bucket, draws.view(), self._colours[draws.background()]))
            captions.append(draws.caption(self._folder.items[index]))
            indices.append(index)
        return Batch(
            captions=tuple(captions),
            pixels=stack_pixels(rows),
            extras={"item": torch.tensor(indices)},
        )

    def _readable(self, group: Group, member: int) -> tuple[int, Levels]:
        for offset in range(len(group.items)):
            index = group.items[(member + offset) % len(group.items)]
            if index in self._skipped:
                continue
            try:
                return index, self._levels(index, group.bucket)
            except UnreadablePictureError as error:
                self._skipped[index] = Skipped(error.path, error.reason)
        first = next(iter(self._skipped.values()))
        raise SafelightError(f"No picture can be read any more; {first.path}: {first.reason}.")

    def _levels(self, index: int, bucket: Size) -> Levels:
        zoom = self._config.zoom
        cover = (math.ceil(bucket[0] * zoom), math.ceil(bucket[1] * zoom))
        path = self._folder.items[index].path
        return self._kept.get(index, lambda: np.array(decode(path, cover)))


def prefetch(
    batch: Callable[[int], T],
    start: int = 0,
    depth: int = 4,
    workers: int = 1,
    stop: int | None = None,
) -> Iterator[T]:
    """`batch(start)`, `batch(start + 1)`, ... computed up to `depth` ahead in threads.

    Without `stop` there is no end. An error in `batch` is raised where its batch would have come.
    Closing the iterator stops the threads.
    """
    steps = itertools.count(start) if stop is None else range(start, stop)
    with ThreadPoolExecutor(workers, "prefetch", initializer=_without_helpers) as pool:
        ahead: deque[Future[T]] = deque()
        try:
            for step in steps:
                ahead.append(pool.submit(batch, step))
                if len(ahead) > depth:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _without_helpers() -> None:
    """Keeps a thread from starting OpenMP threads of its own, which would slow the training down.

    With more OpenMP threads than cores, libgomp no longer spins at a barrier but sleeps at once:
    the main thread's many short operations then wait for the kernel at each.
    """
    # as in torch's own pin_memory thread: the threads that run keep their number, but one started
    # later begins with this one
    torch.set_num_threads(1)
