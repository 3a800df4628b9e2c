"""Jobs and their pictures in SQLite: what is in here outlives every process.

Each change is one transaction, on the disk before the caller goes on (WAL, synchronous FULL). A
worker writes under the number of its `reign`; when a new one begins, the writes of former ones are
refused, so that a process that lingers cannot end a job a second time.
"""

import contextlib
import sqlite3
import threading
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

from safelight.app.server.records import Fault, Job, NewJob, Picture, State
from safelight.errors import SafelightError

MOST_ATTEMPTS = 2
"""How often a job is begun whose worker dies."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    spec TEXT NOT NULL,
    model TEXT NOT NULL,
    place TEXT NOT NULL,
    count INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    merge TEXT,
    key TEXT UNIQUE,
    digest TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    reign INTEGER,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    error TEXT,
    fault TEXT
);
CREATE INDEX IF NOT EXISTS jobs_waiting ON jobs (state, priority DESC, number);
CREATE INDEX IF NOT EXISTS jobs_ended ON jobs (ended);
CREATE TABLE IF NOT EXISTS inputs (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (job, name)
);
CREATE TABLE IF NOT EXISTS pictures (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    content BLOB NOT NULL,
    media TEXT NOT NULL,
    seed TEXT NOT NULL,
    manifest TEXT NOT NULL,
    PRIMARY KEY (job, place)
);
CREATE TABLE IF NOT EXISTS insides (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (job, place)
);
"""
_COLUMNS = (
    "id, number, state, spec, model, place, count, priority, attempts, created, started, ended,"
    " error, fault, (SELECT COUNT(*) FROM pictures WHERE job = jobs.id)"
)
_WAIT = 30.0  # seconds for another process' transaction


class QueueFullError(SafelightError):
    """As many jobs wait as may."""


class KeyReusedError(SafelightError):
    """An idempotency key came again with another request."""


class Store:
    """The jobs in one file; of any thread. Close it when done.

    Raises `SafelightError` if the file cannot be opened, or is no store.
    """

    def __init__(self, file: Path):
        self.file = file
        self._lock = threading.RLock()
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(
                file, timeout=_WAIT, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before there is a table
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise SafelightError(
                f"Cannot keep jobs in {file}: {error}; choose another folder by --state."
            ) from error

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    # What a server does

    def submit(self, job: NewJob, most: int) -> tuple[Job, bool]:
        """Takes a job in and gives it, True if it is new; a job that came before under the same
        idempotency key is given again.

        Raises `QueueFullError` if `most` jobs wait, and `KeyReusedError`.
        """
        with self._changing():
            if job.key is not None:
                found = self._rows("SELECT id, digest FROM jobs WHERE key = ?", job.key)
                if found:
                    if found[0][1] != job.digest:
                        raise KeyReusedError(
                            "This Idempotency-Key came with another request; take a new one."
                        )
                    return self._known(found[0][0]), False
            if self._number("SELECT COUNT(*) FROM jobs WHERE state = 'queued'") >= most:
                raise QueueFullError(f"{most} jobs wait already; come again later.")
            identity = uuid.uuid4().hex
            self._db.execute(
                "INSERT INTO jobs (id, state, spec, model, place, count, priority, merge, key,"
                " digest, created) VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(identity, job.spec, job.model, job.place, job.count, job.priority),
                    *(job.merge, job.key, job.digest, time.time()),
                ),
            )
            self._db.executemany(
                "INSERT INTO inputs VALUES (?, ?, ?)",
                [(identity, name, content) for name, content in job.inputs.items()],
            )
            return self._known(identity), True

    def cancel(self, identity: str) -> Job | None:
        """Ends a job that has not ended, and gives it; None if there is none."""
        with self._changing():
            self._end(identity, "cancelled", None, None)
            return self.get(identity)

    def fail(self, identity: str, error: str, fault: Fault) -> None:
        """Ends a job that a worker cannot end itself."""
        with self._changing():
            self._end(identity, "failed", error, fault)

    def forget(self, identity: str) -> None:
        """Takes a job away with all that is of it."""
        with self._changing():
            self._db.execute("DELETE FROM jobs WHERE id = ?", (identity,))

    def get(self, identity: str) -> Job | None:
        """A job by its id."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", identity)
        return Job(*rows[0]) if rows else None

    def newest(self, most: int, before: int | None = None, state: str | None = None) -> list[Job]:
        """Jobs from the newest on, those that came before number `before`; hints are left out."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM jobs WHERE model != '' AND (? IS NULL OR number < ?) AND"
            " (? IS NULL OR state = ?) ORDER BY number DESC LIMIT ?",
            *(before, before, state, state, most),
        )
        return [Job(*row) for row in rows]

    def ahead_of(self, job: Job) -> int:
        """How many waiting jobs come before a waiting one."""
        return self._number(
            "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND"
            " (priority > ? OR (priority = ? AND number < ?))",
            *(job.priority, job.priority, job.number),
        )

    def picture(self, identity: str, place: int) -> Picture | None:
        """A picture of a job."""
        rows = self._rows(
            "SELECT content, media, seed, manifest FROM pictures WHERE job = ? AND place = ?",
            *(identity, place),
        )
        return Picture(rows[0][0], rows[0][1], int(rows[0][2]), rows[0][3]) if rows else None

    def inside(self, identity: str, place: int) -> str | None:
        """What happened while a picture of a job was made, where that was kept."""
        query = "SELECT content FROM insides WHERE job = ? AND place = ?"
        rows = self._rows(query, identity, place)
        return str(rows[0][0]) if rows else None

    def places(self, identity: str) -> list[int]:
        """Which pictures of a job are there."""
        query = "SELECT place FROM pictures WHERE job = ? ORDER BY place"
        return [row[0] for row in self._rows(query, identity)]

    def made(self, identity: str) -> list[tuple[int, str, int]]:
        """Place, kind of file and seed of each picture of a job that is there."""
        query = "SELECT place, media, seed FROM pictures WHERE job = ? ORDER BY place"
        return [(place, media, int(seed)) for place, media, seed in self._rows(query, identity)]

    def counts(self) -> dict[str, int]:
        """How many jobs there are of each state."""
        return dict(self._rows("SELECT state, COUNT(*) FROM jobs GROUP BY state"))

    def prune(self, seconds: float, size: int) -> int:
        """Forgets jobs that ended so long ago, then the oldest until all pictures take no more than
        `size` bytes; gives how many.
        """
        with self._changing():
            old = self._rows(
                "SELECT id FROM jobs WHERE ended IS NOT NULL AND ended < ?", time.time() - seconds
            )
            gone = [row[0] for row in old]
            sizes = self._rows(
                "SELECT jobs.id, (SELECT COALESCE(SUM(LENGTH(content)), 0) FROM pictures"
                " WHERE job = jobs.id) + (SELECT COALESCE(SUM(LENGTH(content)), 0) FROM insides"
                " WHERE job = jobs.id) FROM jobs WHERE ended IS NOT NULL ORDER BY ended"
            )
            kept = [(identity, taken) for identity, taken in sizes if identity not in set(gone)]
            total = sum(taken for _, taken in kept)
            for identity, taken in kept:
                if total <= size:
                    break
                gone.append(identity)
                total -= taken
            self._db.executemany("DELETE FROM jobs WHERE id = ?", [(one,) for one in gone])
        if gone:
            with self._lock:
                self._db.executescript("PRAGMA incremental_vacuum")  # execute() frees one page
        return len(gone)

    def begin_reign(self) -> int:
        """The number of a new worker, whose predecessor is gone: what that was at waits again, or
        has failed if it was begun `MOST_ATTEMPTS` times.
        """
        with self._changing():
            self._db.execute(
                "INSERT INTO meta VALUES ('reign', 1)"
                " ON CONFLICT (name) DO UPDATE SET value = value + 1"
            )
            worn = self._rows(
                "SELECT id FROM jobs WHERE state = 'running' AND attempts >= ?", MOST_ATTEMPTS
            )
            for (identity,) in worn:
                told = f"The worker died {MOST_ATTEMPTS} times while it made this."
                self._end(identity, "failed", told, "internal")
            self._db.execute(
                "UPDATE jobs SET state = 'queued', reign = NULL WHERE state = 'running'"
            )
            return self._number("SELECT value FROM meta WHERE name = 'reign'")

    # What a worker does

    def claim(self, reign: int, most: int = 1) -> list[tuple[Job, dict[str, bytes]]]:
        """The next job with its inputs, and those behind it whose pictures may share its batch, up
        to `most` pictures; none if none waits, or the reign is over.
        """
        order = "ORDER BY priority DESC, number"
        with self._changing():
            if not self._reigns(reign):
                return []
            first = self._rows(
                f"SELECT id, count, merge FROM jobs WHERE state = 'queued' {order} LIMIT 1"
            )
            if not first:
                return []
            taken, total, merge = [first[0][0]], first[0][1], first[0][2]
            others = self._rows(
                "SELECT id, count FROM jobs WHERE state = 'queued' AND merge = ? AND id != ?"
                f" {order} LIMIT ?",
                *(merge, taken[0], most),
            )
            for identity, count in others:
                if total + count > most:
                    break
                taken.append(identity)
                total += count
            for identity in taken:
                self._db.execute(
                    "UPDATE jobs SET state = 'running', reign = ?, attempts = attempts + 1,"
                    " started = ? WHERE id = ?",
                    (reign, time.time(), identity),
                )
            return [(self._known(one), self._inputs(one)) for one in taken]

    def put(self, reign: int, identity: str, place: int, picture: Picture) -> bool:
        """Keeps a picture of a running job; False if the job is no longer this worker's."""
        with self._changing():
            if not self._owns(reign, identity):
                return False
            self._db.execute(
                "INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(identity, place, picture.content, picture.media),
                    *(str(picture.seed), picture.manifest),
                ),
            )
            if picture.inside:
                self._db.execute(
                    "INSERT OR REPLACE INTO insides VALUES (?, ?, ?)",
                    (identity, place, picture.inside),
                )
            return True

    def finish(
        self,
        reign: int,
        identity: str,
        state: State = "done",
        error: str | None = None,
        fault: Fault | None = None,
    ) -> bool:
        """Ends a running job; False if it is no longer this worker's."""
        with self._changing():
            if not self._owns(reign, identity):
                return False
            self._end(identity, state, error, fault)
            return True

    def release(self, reign: int, identity: str) -> None:
        """Lets a running job wait again, as if it had not been begun."""
        with self._changing():
            self._db.execute(
                "UPDATE jobs SET state = 'queued', reign = NULL, started = NULL,"
                " attempts = attempts - 1 WHERE id = ? AND reign = ? AND state = 'running'",
                (identity, reign),
            )

    def _end(self, identity: str, state: State, error: str | None, fault: Fault | None) -> None:
        changed = self._db.execute(
            "UPDATE jobs SET state = ?, ended = ?, error = ?, fault = ?, reign = NULL"
            " WHERE id = ? AND state IN ('queued', 'running')",
            (state, time.time(), error, fault, identity),
        )
        if changed.rowcount:
            self._db.execute("DELETE FROM inputs WHERE job = ?", (identity,))

    def _owns(self, reign: int, identity: str) -> bool:
        query = "SELECT COUNT(*) FROM jobs WHERE id = ? AND reign = ? AND state = 'running'"
        return self._reigns(reign) and bool(self._number(query, identity, reign))

    def _reigns(self, reign: int) -> bool:
        return self._number("SELECT value FROM meta WHERE name = 'reign'") == reign

    def _known(self, identity: str) -> Job:
        job = self.get(identity)
        assert job is not None
        return job

    def _inputs(self, identity: str) -> dict[str, bytes]:
        return dict(self._rows("SELECT name, content FROM inputs WHERE job = ?", identity))

    def _rows(self, query: str, *values: object) -> list[Any]:
        """Rows, which SQLite types as it will: each caller knows its columns."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    def _number(self, query: str, *values: object) -> int:
        rows = self._rows(query, *values)
        return int(str(rows[0][0])) if rows else 0

    @contextlib.contextmanager
    def _changing(self) -> Generator[None]:
        """One transaction, which is taken back if anything is raised."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
