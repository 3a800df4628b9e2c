"""A server's insides: the store, the worker and those who watch, behind every API alike."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from safelight.app.server.admission import admitted
from safelight.app.server.asked import Asked
from safelight.app.server.catalogue import Catalogue
from safelight.app.server.config import Serving
from safelight.app.server.live import Event, Live
from safelight.app.server.metrics import Metrics
from safelight.app.server.records import Job, NewJob, Picture
from safelight.app.server.store import Store
from safelight.app.server.stream_session import Streams
from safelight.app.server.supervisor import Supervisor
from safelight.config import Value
from safelight.errors import SafelightError

_BEAT = 10.0  # seconds after which a watcher looks by itself
_PRUNES = 60.0  # seconds between two looks at what is too old
_READING = 4  # requests whose pictures are decoded at once
_REMEMBERED = 50  # jobs whose seconds say how long the next will take

log = logging.getLogger("safelight.serve")


class ClosingError(SafelightError):
    """The server is about to end."""


class GoneError(Exception):
    """The client has gone away."""


class Service:
    """What all APIs do with jobs. Within `running` its worker is there."""

    def __init__(self, serving: Serving, *, offline: bool = False):
        self.serving = serving
        self.catalogue = Catalogue(serving.models, offline=offline)
        self.store = Store(serving.database)
        self.live = Live()
        self.streams = Streams()
        self.metrics = Metrics(self.store.counts)
        first = self.catalogue.find(None).place
        self.supervisor = Supervisor(
            serving.working(first), self.store, self._hear, self.live.everything_changed
        )
        self.loaded: list[str] = []  # places of the models in memory
        self.worker_memory = 0
        self.closing = False
        self._ends_at = 0.0
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._begun: dict[str, float] = {}
        self._cancelling: set[asyncio.Task[Job | None]] = set()
        self._reading = asyncio.Semaphore(_READING)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Has a worker, and forgets what is too old."""
        self.supervisor.start()
        pruning = asyncio.create_task(self._prune())
        try:
            yield
        finally:
            self.close_doors()
            pruning.cancel()
            await self.supervisor.stop(max(0.0, self._ends_at - time.monotonic()))
            self.live.everything_changed()
            self.store.close()

    def close_doors(self) -> None:
        """Takes nothing in any more; what runs may end, what waits is kept for the next server."""
        if not self.closing:
            self.closing = True
            self._ends_at = time.monotonic() + self.serving.grace
            self.supervisor.quit()
            self.streams.close()
            self.live.everything_changed()

    async def submit(
        self,
        asked: Asked,
        pictures: Mapping[str, Image.Image],
        *,
        key: str | None = None,
        digest: str = "",
    ) -> tuple[Job, bool]:
        """Hands a job in and gives it, True if it is new.

        Raises `SafelightError` for what cannot be made, `QueueFullError`, `KeyReusedError` and
        `ClosingError`.
        """
        limits = self.serving.limits
        return await self.hand_in(
            lambda: admitted(
                *(asked, pictures, self.catalogue, limits, self.serving.annotators),
                key=key,
                digest=digest,
            )
        )

    async def hand_in(self, admit: Callable[[], NewJob]) -> tuple[Job, bool]:
        """The same with the job that `admit` gives, which is called in a thread of its own."""
        if self.closing:
            raise ClosingError("The server is about to end; come again later.")
        async with self._reading:
            job, new = await run_in_threadpool(
                lambda: self.store.submit(admit(), self.serving.limits.queue)
            )
        if new:
            self.metrics.submitted.labels(model=job.model).inc()
            log.info("job submitted", extra={"told": {"job": job.id, "model": job.model}})
            self.supervisor.send("look")
        return job, new

    async def job(self, identity: str) -> Job | None:
        """A job as it stands."""
        return await run_in_threadpool(self.store.get, identity)

    async def picture(self, identity: str, place: int) -> Picture | None:
        """A picture that was made."""
        return await run_in_threadpool(self.store.picture, identity, place)

    async def pictures(self, identity: str) -> list[Picture]:
        """All that were made of a job, in their order."""
        places = await run_in_threadpool(self.store.places, identity)
        found = [await self.picture(identity, place) for place in places]
        return [picture for picture in found if picture is not None]

    async def cancel(self, identity: str) -> Job | None:
        """Ends a job; None if there is none."""
        job = await run_in_threadpool(self.store.cancel, identity)
        self.supervisor.send("cancel", identity)
        self.live.ended(identity)
        return job

    async def forget(self, identity: str) -> None:
        """Forgets a job that nobody asks for any more."""
        await run_in_threadpool(self.store.forget, identity)

    def cancel_soon(self, identity: str) -> None:
        """The same for a caller that is itself about to be ended, and cannot wait."""
        task = asyncio.create_task(self.cancel(identity))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def events(self, job: Job) -> AsyncGenerator[tuple[Job, Event | None]]:
        """How a job stands now, then each event with the job after it, until it has ended or the
        server is about to; None is a heartbeat.
        """
        with self.live.watching(job.id) as queue:
            found = await self.job(job.id)
            while found is not None:
                yield found, None
                event = None
                while event is None or event.kind != "changed":
                    if found.has_ended or self._is_over(found):
                        return
                    try:
                        event = await asyncio.wait_for(queue.get(), _BEAT)
                    except TimeoutError:
                        break
                    if event.kind != "changed":
                        yield found, event
                found = await self.job(job.id)

    async def ended(self, job: Job, request: Request) -> Job:
        """The job once it has ended, for a client that waits; one that goes away gives it up.

        Raises `ClosingError` where the server ends before, and `GoneError`.
        """
        gone = asyncio.create_task(_gone(request))
        try:
            with self.live.watching(job.id) as queue:
                found = await self.job(job.id)
                while found is not None and not found.has_ended:
                    if self._is_over(found):
                        raise ClosingError(f"The server is about to end; job {job.id} is kept.")
                    getting = asyncio.create_task(queue.get())
                    await asyncio.wait(
                        (gone, getting), timeout=_BEAT, return_when=asyncio.FIRST_COMPLETED
                    )
                    getting.cancel()
                    if gone.done():
                        await self.cancel(job.id)
                        raise GoneError
                    found = await self.job(job.id)
        finally:
            gone.cancel()
        return job if found is None else found

    def retry_after(self) -> int:
        """Seconds after which there may be room in the queue."""
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else 1.0
        return max(1, min(60, round(mean)))

    def _is_over(self, job: Job) -> bool:
        """Whether a job will not end while this server is there."""
        return self.closing and (job.state == "queued" or not self.supervisor.pid)

    def _hear(self, event: Mapping[str, Value]) -> None:
        job, kind = str(event.get("job", "")), event.get("event")
        rss = event.get("rss")
        if isinstance(rss, int):
            self.worker_memory = rss
            self.metrics.worker_memory.set(rss)
        if kind == "begun":
            self._begun[job] = time.monotonic()
            self.live.tell(Event("changed", job))
        elif kind == "ended":
            self._ended(job)
        elif kind in ("step", "picture"):
            self._tell(kind, job, event)
        elif kind in ("loaded", "evicted"):
            models = event.get("models", ())
            self.loaded = [str(place) for place in models] if isinstance(models, list) else []
            self.metrics.models.labels(what=kind).inc()
            log.info(f"model {kind}", extra={"told": {"place": event.get("place"), "rss": rss}})
        elif kind == "fault":
            log.error("model cannot be loaded", extra={"told": {"error": event.get("message")}})

    def _tell(self, kind: str, job: str, event: Mapping[str, Value]) -> None:
        place, step, steps = (int(str(event.get(name, 0))) for name in ("place", "step", "steps"))
        preview = event.get("preview")
        if kind == "step":
            shown = preview if isinstance(preview, str) else None
            self.live.tell(Event("step", job, place, step, steps, shown))
            return
        self.metrics.pictures.inc()
        self.live.tell(Event("picture", job, place))

    def _ended(self, job: str) -> None:
        began = self._begun.pop(job, None)
        if began is not None:
            seconds = time.monotonic() - began
            self._seconds.append(seconds)
            self.metrics.job_seconds.observe(seconds)
            log.info("job ended", extra={"told": {"job": job, "seconds": round(seconds, 3)}})
        self.live.ended(job)

    async def _prune(self) -> None:
        keeping = self.serving.keeping
        while True:
            gone = await run_in_threadpool(self.store.prune, keeping.seconds, keeping.bytes)
            if gone:
                log.info("jobs forgotten", extra={"told": {"jobs": gone}})
            await asyncio.sleep(_PRUNES)


async def _gone(request: Request) -> None:
    """Ends when the client has gone away; the request's body must have been read."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.5)
