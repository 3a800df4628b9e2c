"""Jobs in SQLite: their order, their end, and what is left of them when processes die."""

import dataclasses
import sqlite3

import pytest

from safelight.app.server.records import NewJob, Picture
from safelight.app.server.store import KeyReusedError, QueueFullError, Store
from safelight.errors import SafelightError

PLAIN = NewJob(spec="{}", inputs={}, model="tiny", place="/tiny", count=1)
PICTURE = Picture(b"png", "image/png", 7, "{}")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def submit(store: Store, **changes) -> str:
    job, new = store.submit(dataclasses.replace(PLAIN, **changes), most=100)
    assert new
    return job.id


def claimed(store: Store, reign: int, most: int = 1) -> list[str]:
    return [job.id for job, _ in store.claim(reign, most)]


def test_jobs_come_in_their_order_and_higher_priorities_first(store):
    reign = store.begin_reign()
    first, second = submit(store), submit(store)
    urgent = submit(store, priority=5)
    waiting = store.get(second)
    assert waiting is not None
    assert store.ahead_of(waiting) == 2
    order = [claimed(store, reign)[0] for _ in range(3)]
    assert order == [urgent, first, second]
    assert claimed(store, reign) == []


def test_a_claim_takes_along_what_may_share_its_batch(store):
    reign = store.begin_reign()
    first = submit(store, merge="a")
    other = submit(store, merge="b")
    twin = submit(store, merge="a", count=2)
    third = submit(store, merge="a", count=2)
    alone = submit(store)
    assert claimed(store, reign, 4) == [first, twin]  # the third would make five
    assert claimed(store, reign, 4) == [other]
    assert claimed(store, reign, 4) == [third]
    assert claimed(store, reign, 4) == [alone]


def test_inputs_come_with_the_claim_and_go_with_the_end(store):
    reign = store.begin_reign()
    identity = submit(store, inputs={"image": b"picture"})
    [(_, inputs)] = store.claim(reign)
    assert inputs == {"image": b"picture"}
    store.put(reign, identity, 0, PICTURE)
    assert store.finish(reign, identity)
    with sqlite3.connect(store.file) as db:
        assert db.execute("SELECT COUNT(*) FROM inputs").fetchone() == (0,)
    assert store.picture(identity, 0) == PICTURE


def test_a_half_done_job_is_begun_once_more_and_then_given_up(store):
    identity = submit(store)
    for attempt in (1, 2):
        reign = store.begin_reign()
        [(job, _)] = store.claim(reign)
        assert (job.id, job.attempts) == (identity, attempt)
    store.begin_reign()
    job = store.get(identity)
    assert job is not None
    assert (job.state, job.fault) == ("failed", "internal")
    assert "2 times" in (job.error or "")


def test_a_former_worker_can_end_nothing(store):
    old = store.begin_reign()
    identity = submit(store)
    assert claimed(store, old) == [identity]
    new = store.begin_reign()
    assert not store.put(old, identity, 0, PICTURE)
    assert not store.finish(old, identity)
    assert claimed(store, old) == []
    assert claimed(store, new) == [identity]
    assert not store.finish(old, identity)
    assert store.finish(new, identity)
    assert not store.finish(new, identity, "failed", "again", "internal")
    assert store.counts() == {"done": 1}


def test_a_released_job_waits_as_if_it_had_not_been_begun(store):
    reign = store.begin_reign()
    identity = submit(store)
    for _ in range(3):
        assert claimed(store, reign) == [identity]
        store.release(reign, identity)
    job = store.get(identity)
    assert job is not None
    assert (job.state, job.attempts, job.started) == ("queued", 0, None)


def test_what_waits_survives_the_process(store):
    identity = submit(store)
    again = Store(store.file)
    assert claimed(again, again.begin_reign()) == [identity]
    again.close()


def test_the_queue_is_bounded(store):
    for _ in range(2):
        store.submit(PLAIN, most=2)
    with pytest.raises(QueueFullError, match="2 jobs wait"):
        store.submit(PLAIN, most=2)


def test_an_idempotency_key_gives_the_same_job(store):
    keyed = dataclasses.replace(PLAIN, key="k", digest="d")
    first, new = store.submit(keyed, most=1)
    again, new_again = store.submit(keyed, most=1)  # though the queue is full
    assert (new, new_again) == (True, False)
    assert first.id == again.id
    with pytest.raises(KeyReusedError, match="another request"):
        store.submit(dataclasses.replace(keyed, digest="other"), most=9)
    assert store.counts() == {"queued": 1}


def test_a_cancelled_job_takes_no_pictures(store):
    reign = store.begin_reign()
    waiting, running = submit(store), submit(store)
    store.cancel(waiting)
    assert claimed(store, reign) == [running]
    store.cancel(running)
    assert not store.put(reign, running, 0, PICTURE)
    assert not store.finish(reign, running)
    assert store.counts() == {"cancelled": 2}
    assert store.cancel("0" * 32) is None


def test_old_jobs_and_then_the_largest_part_are_forgotten(store):
    reign = store.begin_reign()
    jobs = [submit(store) for _ in range(4)]
    for i, identity in enumerate(jobs):
        claimed(store, reign)
        store.put(reign, identity, 0, Picture(bytes(1000), "image/png", 0, "{}"))
        store.finish(reign, identity)
        with sqlite3.connect(store.file) as db:
            db.execute("UPDATE jobs SET ended = ended - ? WHERE id = ?", (100 - i, identity))
    waiting = submit(store)
    assert store.prune(98.5, 10**9) == 2
    assert store.prune(1000.0, 1500) == 1
    assert [job.id for job in store.newest(10)] == [waiting, jobs[3]]
    assert store.picture(jobs[0], 0) is None


def test_forgotten_pictures_give_their_room_back(store):
    reign = store.begin_reign()
    identity = submit(store)
    claimed(store, reign)
    store.put(reign, identity, 0, Picture(bytes(2**20), "image/png", 0, "{}"))
    store.finish(reign, identity)
    store.prune(0.0, 0)

    def pages() -> int:
        with sqlite3.connect(store.file) as db:
            return db.execute("PRAGMA page_count").fetchone()[0]

    assert pages() * 4096 < 2**19


def test_a_file_that_is_no_store_is_said_in_one_line(tmp_path):
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(SafelightError, match="choose another folder by --state"):
        Store(tmp_path / "jobs.sqlite")
