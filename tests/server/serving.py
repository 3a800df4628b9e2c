"""What tests of the server share."""

import threading
import time

import httpx
import uvicorn

from safelight.app.server.http import app_of
from safelight.app.server.service import Service


def wait_for(client: httpx.Client, identity: str, expected: str = "done") -> dict:
    with client.stream("GET", f"/v1/jobs/{identity}/events") as stream:
        for _ in stream.iter_lines():
            pass
    job = client.get(f"/v1/jobs/{identity}").json()
    assert job["state"] == expected, job
    return job


class Running:
    """A server in a thread."""

    def __init__(self, service: Service):
        self.service = service
        config = uvicorn.Config(app_of(self.service), port=0, log_level="warning", lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        _until(lambda: self.server.started, 120)
        self.port: int = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, **options)

    def wait_until_ready(self) -> None:
        with self.client() as client:
            _until(lambda: client.get("/readyz").status_code == 200, 600)

    def stop(self) -> None:
        self.service.close_doors()
        self.server.should_exit = True
        self.thread.join(60)


def _until(holds, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)
