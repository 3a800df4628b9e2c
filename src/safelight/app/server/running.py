"""The server at work: its lock, its socket, its end."""

import contextlib
import socket
import sqlite3
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import uvicorn

from safelight.app.server.config import Serving
from safelight.app.server.http import app_of
from safelight.app.server.logs import log_to_stderr
from safelight.app.server.service import Service
from safelight.errors import SafelightError
from safelight.pipelines.load import check_stored

_BACKLOG = 256


def serve(serving: Serving, *, log_level: str = "info", offline: bool = False) -> None:
    """Serves until it is told to end, by SIGINT or SIGTERM: what runs may end, what waits is kept.

    Raises `SafelightError` if the address or the folder of jobs cannot be had, another server has
    it, a model is not there, or the engine computes no stored weights.
    """
    check_open(serving)
    check_stored(serving.engine, serving.storage)
    serving.limits.check()
    with locked(serving.state), opened_socket(serving) as listening:
        service = Service(serving, offline=offline)
        log_to_stderr(log_level)
        config = uvicorn.Config(
            app_of(service),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=max(1, round(serving.grace)),
            server_header=False,
        )
        server = _Server(config, service)
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        server.told = f"Listening on http://{shown}:{port}; Ctrl-C ends it."
        with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
            server.run(sockets=[listening])


def check_open(serving: Serving) -> None:
    """Raises `SafelightError` for an address that others reach and nothing guards."""
    if not (serving.is_local or serving.token or serving.open_to_all):
        raise SafelightError(
            f"Others may reach {serving.host}: give --token TOKEN (or SAFELIGHT_TOKEN), which they "
            "must bring, or --open to let everybody in."
        )


class _Server(uvicorn.Server):
    """Says where it listens, and closes the service's doors as soon as it is to end."""

    told = ""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self.service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            print(self.told, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.service.close_doors()
        super().handle_exit(sig, frame)


@contextlib.contextmanager
def opened_socket(serving: Serving) -> Generator[socket.socket]:
    """Listens at the address; `SafelightError` if it cannot be had."""
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    try:
        listening = socket.create_server(
            (serving.host, serving.port), family=family, backlog=_BACKLOG
        )
    except (OSError, OverflowError) as error:
        raise SafelightError(
            f"Cannot listen on {serving.host}:{serving.port}: "
            f"{getattr(error, 'strerror', None) or error}; choose another by --port, or 0 for any."
        ) from error
    with listening:
        yield listening


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Has a folder of jobs for this process alone, which the system undoes however that ends.

    Raises `SafelightError` if another server has it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = sqlite3.connect(folder / "lock.sqlite", timeout=0.0, isolation_level=None)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            lock.close()
            raise SafelightError(
                f"Another server has the jobs in {folder}; end it, or choose another --state."
            ) from error
    except (OSError, sqlite3.Error) as error:
        raise SafelightError(f"Cannot keep jobs in {folder}: {error}.") from error
    try:
        yield
    finally:
        lock.close()
