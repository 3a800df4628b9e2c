"""Answers that all APIs share: errors in one line, in the shape that each kind of client reads."""

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from safelight.app.server.catalogue import UnknownModelError
from safelight.app.server.records import Job
from safelight.app.server.refusals import NotHereError
from safelight.app.server.service import ClosingError, GoneError, Service
from safelight.app.server.store import KeyReusedError, QueueFullError
from safelight.errors import SafelightError

log = logging.getLogger("safelight.serve")

_GONE = 499  # nobody reads it
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}


def service_of(request: Request) -> Service:
    """The service behind an app."""
    return cast(Service, request.app.state.service)


def reply(status: int, message: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer that says one line: under `error.message`, as OpenAI's clients read it, and under
    `detail`, as the web UI's do.
    """
    message = message.encode("utf-8", "replace").decode()  # a key may be half a character
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body = {
        "error": {"message": message, "type": kind, "param": None, "code": None},
        "detail": message,
    }
    return JSONResponse(body, status, dict(headers or {}))


def failed(job: Job) -> SafelightError | HTTPException | None:
    """What to raise for a waiting client where a job has no result; None where it has."""
    if job.state == "cancelled":
        return HTTPException(409, "The job was cancelled.")
    if job.state != "failed":
        return None
    if job.fault == "request":
        return SafelightError(job.error or "")
    return HTTPException(504 if job.fault == "time" else 500, job.error or "")


def with_errors(app: FastAPI) -> None:
    """Lets an app answer errors in one line."""

    async def mistake(request: Request, error: Exception) -> Response:
        line = " ".join(str(error).split())
        if isinstance(error, QueueFullError | ClosingError):
            after = {"Retry-After": str(service_of(request).retry_after())}
            return reply(429 if isinstance(error, QueueFullError) else 503, line, headers=after)
        if isinstance(error, NotHereError):
            return reply(501, line)
        if isinstance(error, UnknownModelError):
            return reply(404, line)
        return reply(422 if isinstance(error, KeyReusedError) else 400, line)

    async def invalid(request: Request, error: Exception) -> Response:
        return reply(422, _first(cast(RequestValidationError, error).errors()))

    async def http(request: Request, error: Exception) -> Response:
        told = cast(HTTPException, error)
        return reply(told.status_code, str(told.detail), headers=told.headers)

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=_GONE)

    async def fault(request: Request, error: Exception) -> Response:
        log.error("fault", extra={"told": {"traceback": traceback.format_exception(error)}})
        return reply(500, f"A fault of the server ({type(error).__name__}), which its log tells of")

    app.add_exception_handler(SafelightError, mistake)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(GoneError, gone)
    app.add_exception_handler(Exception, fault)


def _first(errors: Sequence[Mapping[str, object]]) -> str:
    """The first thing that is wrong with a body, in one line."""
    if not errors:
        return "The request cannot be read."
    error = errors[0]
    where = [str(part) for part in cast(Sequence[object], error.get("loc", ()))]
    name = ".".join(where[1:] or where)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{name}: {error.get('msg')}{more}."
