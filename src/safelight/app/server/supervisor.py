"""Keeps one worker running: starts it anew when it dies, and ends it when the server ends."""

import asyncio
import json
import logging
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import cast

from safelight.app.server.config import Working
from safelight.app.server.store import Store
from safelight.config import Value, to_dict

_LINE = 2**27  # bytes of an event, previews within
_LIVED = 60.0  # seconds after which a worker's death is no series
_PAUSES = (0.0, 0.5, 2.0, 5.0, 10.0)  # seconds between deaths and births in a series
_PATIENCE = 30.0  # seconds beyond its time after which a job that does not end is given up
_LOOKS = 1.0  # seconds between two looks at that

Hear = Callable[[Mapping[str, Value]], None]

log = logging.getLogger("safelight.serve")


class Supervisor:
    """One worker over the time of a server; events of each are `hear`d.

    `began` is called whenever a new one's reign has begun, and the jobs of the former stand as they
    will.
    """

    def __init__(
        self,
        working: Working,
        store: Store,
        hear: Hear,
        began: Callable[[], None],
        *,
        patience: float = _PATIENCE,
    ):
        self.working, self.store, self.hear, self.began = working, store, hear, began
        self.patience = patience
        self.ready = False
        self.deaths = 0
        self._process: Process | None = None
        self._running: dict[str, float] = {}  # jobs, and when they are to have ended
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int | None:
        """The worker's process."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts a worker, and keeps one running."""
        self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._watch())]

    def send(self, command: str, job: str = "") -> None:
        """Tells the worker something; where there is none, the next one finds it in the store."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(ConnectionError, RuntimeError):
                line = json.dumps({"command": command, "job": job})
                self._process.stdin.write(line.encode() + b"\n")

    def quit(self) -> None:
        """Lets the worker end once it has done what it is at, and begins none after it."""
        self._stopping = True
        self.send("quit")

    async def stop(self, grace: float) -> None:
        """Lets the worker end the job that it is at, for `grace` seconds; then that is to wait
        again.
        """
        self._stopping = True
        for command, seconds in (("quit", grace), ("abort", self.patience)):
            self.send(command)
            if await self._ends(seconds):
                break
        else:
            self._kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ends(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _keep(self) -> None:
        deaths = 0
        while not self._stopping:
            reign = await asyncio.to_thread(self.store.begin_reign)
            self._running.clear()
            self.began()
            born = time.monotonic()
            await self._live(reign)
            self.ready = False
            if self._stopping:
                return
            deaths = 0 if time.monotonic() - born > _LIVED else deaths + 1
            self.deaths += 1
            code = None if self._process is None else self._process.returncode
            log.error("worker died", extra={"told": {"code": code, "deaths": self.deaths}})
            await asyncio.sleep(_PAUSES[min(deaths, len(_PAUSES) - 1)])

    async def _live(self, reign: int) -> None:
        """The life of one worker."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "safelight.app.server.worker"),
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE,
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        told = {"reign": reign, "working": to_dict(self.working)}
        process.stdin.write(json.dumps(told).encode() + b"\n")
        async for line in process.stdout:
            with suppress(ValueError):
                self._heard(cast(dict[str, Value], json.loads(line)))
        await process.wait()

    def _heard(self, event: Mapping[str, Value]) -> None:
        job = str(event.get("job", ""))
        match event.get("event"):
            case "ready":
                self.ready = True
            case "begun":
                self._running[job] = time.monotonic() + cast(float, event["seconds"])
            case "ended":
                self._running.pop(job, None)
            case _:
                pass
        self.hear(event)

    async def _watch(self) -> None:
        """Gives up a job that does not end even though its time is over: the worker with it."""
        while True:
            await asyncio.sleep(_LOOKS)
            for job, until in list(self._running.items()):
                if time.monotonic() > until + self.patience:
                    told = f"The job did not end in {self.working.seconds:g} s and was given up."
                    await asyncio.to_thread(self.store.fail, job, told, "time")
                    log.error("job given up", extra={"told": {"job": job}})
                    self._kill()
                    break

    def _kill(self) -> None:
        self._running.clear()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
