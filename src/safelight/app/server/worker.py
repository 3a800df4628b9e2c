"""The one process that owns the models: `python -m safelight.app.server.worker`.

It takes jobs from the store and keeps their pictures there. Standard input brings its configuration
as the first line, then commands, a JSON object each; where that ends, the server is gone and so is
the worker. Standard output carries what happens, likewise; nothing of it is needed to do the jobs.
"""

import base64
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import cast

from PIL import Image

from safelight.app.server.admission import apart
from safelight.app.server.clips import is_clip
from safelight.app.server.config import Working
from safelight.app.server.making import (
    CancelledError,
    Hooks,
    Row,
    SkippedError,
    Step,
    TimeUpError,
    Work,
    make_alone,
    make_batch,
    pixels_of,
    read_work,
)
from safelight.app.server.making_clips import make_clip
from safelight.app.server.making_hints import make_hint
from safelight.app.server.models import Loaded, Models, memory_used
from safelight.app.server.records import Job, Picture
from safelight.app.server.store import Store
from safelight.config import Value, from_dict
from safelight.errors import SafelightError

_IDLE = 1.0  # seconds after which an idle worker looks for jobs unasked

Claimed = list[tuple[Job, dict[str, bytes]]]


class Worker:
    """Does jobs until it is told to quit."""

    def __init__(self, working: Working, reign: int, commands: "Commands", events: "Events"):
        self.working, self.reign, self.commands, self.events = working, reign, commands, events
        self.store = Store(working.database)
        self.models = Models(working, self._tell_model)
        self._deadline = 0.0

    def run(self) -> None:
        """The loop: loads the first model, then takes what waits, in its order."""
        try:
            self.models.at(self.working.first)
        except SafelightError as error:
            self.events.send("fault", message=str(error))
        self.events.send("ready", rss=memory_used())
        while not self.commands.quits:
            claimed = self.store.claim(self.reign, self.working.batch)
            if claimed:
                self._do(claimed)
            else:
                self.commands.wait(_IDLE)
        self.store.close()

    def _do(self, claimed: Claimed) -> None:
        """Does jobs that were claimed together; each has ended, or waits again."""
        self._deadline = time.monotonic() + self.working.seconds * len(claimed)
        for job, _ in claimed:
            self.events.send("begun", job=job.id, seconds=self.working.seconds * len(claimed))
        first = claimed[0][0]
        if first.is_hint or is_clip(first.spec):  # which share with none
            self._do_single(*claimed[0])
            return
        works: list[Work] = []
        loaded: Loaded | None = None
        for job, inputs in claimed:
            try:
                loaded = self.models.at(job.place)
                works.append(read_work(job, inputs, loaded, self.working))
            except Exception as error:
                self._fail(job, error)
        if loaded is None:
            return
        there = {work.job.id: self.store.places(work.job.id) for work in works}
        rows = [
            Row(work, place)
            for work in works
            for place in range(len(work.cells))
            if place not in there[work.job.id]  # by an attempt that died
        ]
        for batch in self._batches(rows):
            self._make(batch, loaded)
        for work in works:
            self._end(work.job)

    def _do_single(self, job: Job, inputs: dict[str, bytes]) -> None:
        """Does a job of a clip or a hint; it has ended, or waits again."""
        hooks = Hooks(self._stop, self._tell_step, self._put)
        try:
            if self.store.places(job.id):
                pass  # by an attempt that died
            elif job.is_hint:
                make_hint(job, inputs, self.models.annotators, self.working, hooks)
            else:
                pipeline = self.models.of_clips_at(job.place)
                make_clip(job, inputs, pipeline, self.working, hooks)
        except (CancelledError, SkippedError, TimeUpError):
            pass  # the job's end says which
        except Exception as error:
            self._fail(job, error)
        self._end(job)

    def _batches(self, rows: list[Row]) -> list[list[Row]]:
        """Rows that share calls of the network: as many as may, and as have room."""
        if not rows or apart(rows[0].work.asked) or not self._merges(rows):
            return [[row] for row in rows]
        room = int(self.working.pixels // max(1.0, pixels_of(rows[0].settings)))
        most = max(1, min(self.working.batch, room))
        return [rows[i : i + most] for i in range(0, len(rows), most)]

    def _merges(self, rows: list[Row]) -> bool:
        """Whether what the model makes of the requests agrees as far as a batch needs it to."""
        first = rows[0]
        return all(
            row.settings == first.settings
            and row.request.negative == first.request.negative
            and mergeable(row)
            for row in rows
        )

    def _make(self, rows: list[Row], loaded: Loaded) -> None:
        """Makes rows together, or one by one where together they cannot be made."""
        rows = [row for row in rows if self._stop(row.work.job.id) in (None, SkippedError)]
        hooks = Hooks(self._stop, self._tell_step, self._put)
        try:
            if len(rows) > 1:
                make_batch(rows, loaded, hooks)
            elif rows:
                make_alone(rows[0], loaded, hooks)
        except (CancelledError, SkippedError, TimeUpError):
            pass  # the job's end says which
        except SafelightError as error:
            if len(rows) == 1:
                self._fail(rows[0].work.job, error)
                return
            for row in rows:
                self._make([row], loaded)
        except Exception as error:
            for row in rows:
                self._fail(row.work.job, error)
        finally:
            for row in rows:
                self.commands.skipped.discard(row.work.job.id)  # which is of one picture

    def _stop(self, job: str) -> type[Exception] | None:
        if job in self.commands.cancelled or self.commands.aborts:
            return CancelledError
        if time.monotonic() > self._deadline:
            return TimeUpError
        return SkippedError if job in self.commands.skipped else None

    def _end(self, job: Job) -> None:
        """Ends a job whose pictures are made, or lets it wait again where the worker is to quit."""
        if job.id in self.commands.finished_early:
            self.store.finish(self.reign, job.id)
        elif self.commands.aborts and len(self.store.places(job.id)) < job.count:
            self.store.release(self.reign, job.id)
        elif time.monotonic() > self._deadline and len(self.store.places(job.id)) < job.count:
            told = f"The job took longer than the {self.working.seconds:g} s that a job may take."
            self.store.finish(self.reign, job.id, "failed", told, "time")
        else:
            self.store.finish(self.reign, job.id)  # which a cancelled or failed one has already
        self.commands.forget(job.id)
        self.events.send("ended", job=job.id, rss=memory_used())

    def _fail(self, job: Job, error: Exception) -> None:
        if isinstance(error, SafelightError):
            self.store.finish(self.reign, job.id, "failed", str(error), "request")
        else:
            traceback.print_exception(error, file=sys.stderr)
            told = f"A fault of the server ({type(error).__name__}), which its log tells of."
            self.store.finish(self.reign, job.id, "failed", told, "internal")
        self.events.send("ended", job=job.id, rss=memory_used())

    def _put(self, job: str, place: int, picture: Picture) -> bool:
        if job in self.commands.cancelled or not self.store.put(self.reign, job, place, picture):
            return False
        self.events.send("picture", job=job, place=place)
        return True

    def _tell_step(self, step: Step) -> None:
        preview = None if step.preview is None else _png_text(step.preview)
        self.events.send(
            "step",
            job=step.job,
            place=step.place,
            step=step.step,
            steps=step.steps,
            preview=preview,
        )

    def _tell_model(self, what: str, place: str) -> None:
        self.events.send(what, place=place, models=self.models.places, rss=memory_used())


def mergeable(row: Row) -> bool:
    """Whether a picture may share a batch: it is made of a prompt alone, which names no adapters
    and says the same in all steps, and its noise is its seed's.
    """
    request = row.request
    led = request.controls or request.conditions or request.image_prompts or request.given.parts
    texts = (request.prompt, request.negative)
    plain = not any(mark in text for text in texts for mark in ("<", "[", "AND", "BREAK"))
    return not led and plain and request.subseed_strength == 0 and not apart(row.work.asked)


class Commands:
    """What the server has said, read in a thread of its own."""

    def __init__(self):
        self.cancelled: set[str] = set()
        self.skipped: set[str] = set()
        self.finished_early: set[str] = set()
        self.quits = False
        self.aborts = False
        self._news = threading.Event()

    def wait(self, seconds: float) -> None:
        """Waits for the next command, or that long."""
        self._news.wait(seconds)
        self._news.clear()

    def forget(self, job: str) -> None:
        """Forgets what was said of a job that has ended."""
        for said in (self.cancelled, self.skipped, self.finished_early):
            said.discard(job)

    def take(self, told: dict[str, Value]) -> None:
        """Takes one command."""
        job = str(told.get("job", ""))
        match told.get("command"):
            case "cancel":
                self.cancelled.add(job)
            case "finish":  # with what is there
                self.finished_early.add(job)
                self.cancelled.add(job)
            case "skip":
                self.skipped.add(job)
            case "quit":
                self.quits = True
            case "abort":
                self.quits = self.aborts = True
            case _:  # "look": there are new jobs
                pass
        self._news.set()

    def read_from(self, stream: io.BufferedReader) -> None:
        """Reads commands until the server is gone, and then ends this process at once: what it is
        at belongs to the next one.
        """
        for line in stream:
            self.take(cast(dict[str, Value], json.loads(line)))
        os._exit(1)


class Events:
    """Tells the server what happens, a JSON object a line."""

    def __init__(self, stream: io.BufferedWriter):
        self._stream = stream

    def send(self, event: str, **told: "Value | list[str]") -> None:
        """Sends one event; a server that is gone ends this process."""
        try:
            self._stream.write(json.dumps({"event": event, **told}).encode() + b"\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            os._exit(1)


def _png_text(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return base64.b64encode(stream.getvalue()).decode()


def main() -> None:
    """Runs a worker on this process' standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the server
    events = Events(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever prints, prints into the log
    stream = cast(io.BufferedReader, sys.stdin.buffer)
    told = cast(dict[str, Value], json.loads(stream.readline()))
    reign = cast(int, told["reign"])
    working = from_dict(Working, cast(dict[str, Value], told["working"]))
    commands = Commands()
    threading.Thread(target=commands.read_from, args=(stream,), daemon=True).start()
    Worker(working, reign, commands, events).run()
    sys.stdout.flush()
    os._exit(0)  # without waiting for the thread that reads


if __name__ == "__main__":
    main()
