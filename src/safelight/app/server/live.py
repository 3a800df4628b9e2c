"""What happens to jobs, for those who watch them; the store alone knows how they stand."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

_ROOM = 256  # events that a watcher may be behind

Kind = Literal["changed", "step", "picture"]


@dataclass(frozen=True)
class Event:
    """Something that happened: the job's state "changed", a "step" of a picture is done, or a
    "picture" is there.
    """

    kind: Kind
    job: str
    place: int = 0
    step: int = 0
    steps: int = 0
    preview: str | None = None  # a PNG in base64


class Live:
    """Tells watchers in one event loop what happens; one that is slow misses what is oldest."""

    def __init__(self):
        self._watchers: dict[str, set[asyncio.Queue[Event]]] = {}
        self.newest: dict[str, Event] = {}  # the last step of each running job

    @property
    def watchers(self) -> int:
        """How many there are."""
        return sum(map(len, self._watchers.values()))

    @contextmanager
    def watching(self, job: str) -> Generator[asyncio.Queue[Event]]:
        """The events of a job from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_ROOM)
        self._watchers.setdefault(job, set()).add(queue)
        try:
            yield queue
        finally:
            self._watchers[job].discard(queue)
            if not self._watchers[job]:
                del self._watchers[job]

    def tell(self, event: Event) -> None:
        """Tells the job's watchers."""
        if event.kind == "step":
            old = self.newest.get(event.job)
            self.newest[event.job] = event if event.preview or old is None else _keeping(old, event)
        for queue in self._watchers.get(event.job, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    def ended(self, job: str) -> None:
        """Forgets what a job was at, and tells that it changed."""
        self.newest.pop(job, None)
        self.tell(Event("changed", job))

    def everything_changed(self) -> None:
        """Lets every watcher look how its job stands."""
        self.newest.clear()
        for job in list(self._watchers):
            self.tell(Event("changed", job))


def _keeping(old: Event, new: Event) -> Event:
    """The new step with the old one's preview, while it is of the same picture."""
    preview = old.preview if old.place == new.place else None
    return Event("step", new.job, new.place, new.step, new.steps, preview)
