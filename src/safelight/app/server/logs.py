"""Logs as JSON, a line each, on standard error; and the layer that logs and times requests."""

import json
import logging
import sys
import time
from typing import cast

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.app.server.metrics import Metrics

log = logging.getLogger("safelight.serve")


class JsonLines(logging.Formatter):
    """One JSON object a line; what a record's `extra={"told": {...}}` holds are its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """A record in one line."""
        told = cast(dict[str, object], getattr(record, "told", {}))
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **told,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_to_stderr(level: str) -> None:
    """Lets this program, and the HTTP server beneath it, log as `JsonLines` from a level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("safelight.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper() if name != "uvicorn" else "WARNING")


class Logged:
    """Logs and times each request, by its route's pattern, which has no names of users in it."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Asks the app, and notes how it answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, taken = time.perf_counter(), 0, 0.0

        async def noting(message: Message) -> None:
            nonlocal status, taken
            if message["type"] == "http.response.start":
                status, taken = message["status"], time.perf_counter() - start
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = cast(BaseRoute | None, scope.get("route"))
            path = str(getattr(route, "path", "other"))
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.requests.labels(method, path, str(status)).observe(taken)
            told = {"method": method, "path": path, "status": status, "seconds": round(taken, 4)}
            level = logging.DEBUG if path in _OFTEN else logging.INFO
            log.log(level, "request", extra={"told": told})


_OFTEN = ("/healthz", "/readyz", "/metrics", "/sdapi/v1/progress")
_METHODS = ("GET", "POST", "DELETE", "OPTIONS", "HEAD", "PUT", "PATCH")
