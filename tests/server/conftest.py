"""One server for all tests: the app in this process, its worker in another, on tiny models."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving import Running, wait_for

from safelight.app.server.config import Limits, Serving
from safelight.app.server.service import Service
from tiny_estimators import write_depth, write_hed
from tiny_model import write_tiny_model
from tiny_video import write_video_model

LIMITS = Limits(pixels=2**14, given_pixels=2**16, body=2**21, count=8, steps=500, seconds=300.0)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder of two models of pictures, `tiny` and `other`, and one of clips, `moving`."""
    folder = tmp_path_factory.mktemp("library")
    write_tiny_model(folder / "tiny")
    write_tiny_model(folder / "other", seed=1)
    write_video_model(folder / "moving")
    return folder


@pytest.fixture(scope="session")
def model_folder(models) -> Path:
    return models / "tiny"


@pytest.fixture(autouse=True)
def started_soon(networks_are_kept):
    """What one stream's process exported, that of the next finds."""


@pytest.fixture(scope="session")
def estimators(tmp_path_factory) -> dict[str, Path]:
    """The weights of small networks for two kinds of hints."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("estimators")
    return {"depth": write_depth(folder), "softedge": write_hed(folder / "hed.safetensors")}


@pytest.fixture(scope="session")
def server(models, estimators, tmp_path_factory) -> Iterator[Running]:
    before = os.environ.get("SAFELIGHT_MODELS")
    os.environ["SAFELIGHT_MODELS"] = str(models)
    serving = Serving(
        models=(str(models / "tiny"),),
        state=tmp_path_factory.mktemp("state"),
        limits=LIMITS,
        device="cpu",
        engine="torch",
        kept=1,
        annotators=estimators,
        grace=5.0,
    )
    running = Running(Service(serving, offline=True))
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
