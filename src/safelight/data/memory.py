"""Things kept in memory up to a number of bytes."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

K = TypeVar("K")
V = TypeVar("V", np.ndarray, Tensor)


class Kept(Generic[K, V]):
    """Arrays made once and kept while there is room; once it is full, others are made each time.

    Nothing is dropped for something newer: where everything is used once an epoch in a new order,
    that would drop what is soon needed again. Several threads may use it.
    """

    def __init__(self, room: int):
        self._room = room
        self._values: dict[K, V] = {}
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of `key`, made now unless it is kept."""
        kept = self._values.get(key)
        if kept is not None:
            return kept
        value = make()
        with self._lock:
            if key not in self._values and value.nbytes <= self._room:
                self._values[key] = value
                self._room -= value.nbytes
        return value
