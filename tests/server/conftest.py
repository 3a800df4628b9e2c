"""One server for all tests: the app in this process, its worker in another, on tiny models."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from serving import wait_for

from safelight.app.server.config import Limits, Serving
from safelight.app.server.http import app_of
from safelight.app.server.service import Service
from tiny_model import write_tiny_model

LIMITS = Limits(pixels=2**14, given_pixels=2**16, body=2**21, count=8, steps=500, seconds=60.0)


class Running:
    """A server in a thread."""

    def __init__(self, serving: Serving):
        self.service = Service(serving, offline=True)
        config = uvicorn.Config(app_of(self.service), port=0, log_level="warning", lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        _until(lambda: self.server.started, 60)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, **options)

    def wait_until_ready(self) -> None:
        with self.client() as client:
            _until(lambda: client.get("/readyz").status_code == 200, 180)

    def stop(self) -> None:
        self.service.close_doors()
        self.server.should_exit = True
        self.thread.join(60)


def _until(holds, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder of two models, `tiny` and `other`."""
    folder = tmp_path_factory.mktemp("library")
    write_tiny_model(folder / "tiny")
    write_tiny_model(folder / "other", seed=1)
    return folder


@pytest.fixture(scope="session")
def model_folder(models) -> Path:
    return models / "tiny"


@pytest.fixture(scope="session")
def server(models, tmp_path_factory) -> Iterator[Running]:
    before = os.environ.get("SAFELIGHT_MODELS")
    os.environ["SAFELIGHT_MODELS"] = str(models)
    serving = Serving(
        models=(str(models / "tiny"),),
        state=tmp_path_factory.mktemp("state"),
        limits=LIMITS,
        device="cpu",
        kept=1,
        grace=5.0,
    )
    running = Running(serving)
    running.wait_until_ready()
    yield running
    running.stop()
    if before is None:
        del os.environ["SAFELIGHT_MODELS"]
    else:
        os.environ["SAFELIGHT_MODELS"] = before


@pytest.fixture
def client(server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def finished(client):
    """Hands a job in, and gives it once it has ended."""

    def finish(expected: str = "done", **asked) -> dict:
        answer = client.post("/v1/jobs", json=asked)
        assert answer.status_code == 202, answer.text
        return wait_for(client, answer.json()["id"], expected)

    return finish
