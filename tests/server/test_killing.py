"""Processes that are killed in the middle of a job lose nothing and do nothing twice."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

SLOW = {"steps": 150, "alone": True, "seed": 1}  # a second or so


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def until(holds, seconds: float = 400.0):
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.TransportError):
            if found := holds():
                return found
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


@contextlib.contextmanager
def serving(model: Path, state: Path) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    command = [sys.executable, "-m", "safelight.app.cli", "serve", "--port", "0"]
    command += ["--grace", "120"]
    process = subprocess.Popen(
        [*command, "--model", str(model), "--state", str(state), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"Listening on (http://127\.0\.0\.1:\d+); Ctrl-C ends it\.\n", line)
        assert match, line
        with httpx.Client(base_url=match[1], timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def state_of(client: httpx.Client, job: dict) -> dict:
    return client.get(f"/v1/jobs/{job['id']}").json()


def is_made(client: httpx.Client, job: dict) -> bool:
    """Whether its sampler is at work."""
    now = state_of(client, job)
    return now["state"] == "running" and now["progress"] is not None


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_jobs_survive_the_death_of_the_worker_and_of_the_server(model_folder, tmp_path):
    state = tmp_path / "state"
    with serving(model_folder, state) as (server, client):
        jobs = [client.post("/v1/jobs", json=SLOW).json() for _ in range(3)]
        until(lambda: is_made(client, jobs[0]))
        [worker] = children(server.pid)
        os.kill(worker, signal.SIGKILL)
        until(lambda: state_of(client, jobs[0])["state"] == "done")
        bits = client.get(f"/v1/jobs/{jobs[0]['id']}/pictures/0").content
        until(lambda: is_made(client, jobs[1]))
        [worker] = children(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{worker}").exists(), 20)  # it goes with its server

    with serving(model_folder, state) as (server, client):
        assert client.get(f"/v1/jobs/{jobs[0]['id']}/pictures/0").content == bits
        for job in jobs[1:]:
            until(lambda job=job: state_of(client, job)["state"] == "done")
            made = state_of(client, job)
            assert [one["place"] for one in made["pictures"]] == [0]
        listed = client.get("/v1/jobs").json()["jobs"]
        assert sorted(job["id"] for job in listed) == sorted(job["id"] for job in jobs)
        assert {client.get(one["pictures"][0]["url"]).content for one in listed} == {bits}

        last = client.post("/v1/jobs", json=SLOW).json()
        kept = client.post("/v1/jobs", json=SLOW).json()
        until(lambda: is_made(client, last))
        server.send_signal(signal.SIGTERM)
        server.wait(200)

    from safelight.app.server.store import Store

    store = Store(state / "jobs.sqlite")
    states = [store.get(job["id"]) for job in (last, kept)]
    assert [job and (job.state, job.attempts) for job in states] == [("done", 1), ("queued", 0)]
    store.close()


def test_a_second_server_on_the_same_folder_is_refused(tmp_path, capsys):
    from safelight.app.cli import main
    from safelight.app.server.running import locked

    with locked(tmp_path):
        assert main(["serve", "--state", str(tmp_path), "--port", "0"]) == 2
    assert "Another server has the jobs" in capsys.readouterr().err
