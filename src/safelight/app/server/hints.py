"""Hints for clients that wait: made here, or by the worker where a network estimates them."""

from collections.abc import Mapping

from fastapi import Request
from PIL import Image
from starlette.concurrency import run_in_threadpool

from safelight.app.server.estimates import check_estimated, hint_job
from safelight.app.server.replies import failed, service_of
from safelight.app.server.service import ClosingError
from safelight.app.server.uploads import reopened
from safelight.config import Value
from safelight.errors import SafelightError
from safelight.pipelines.annotate import annotate, kind_of
from safelight.pipelines.estimating import WEIGHTS


async def hint_of(
    request: Request, module: str, picture: Image.Image, options: Mapping[str, Value]
) -> Image.Image:
    """The hint that a preprocessor makes of a picture.

    Raises `NotHereError` for one whose network this server has not, `SafelightError` for an unknown
    one, or options of another.
    """
    kind = kind_of(module)
    check_estimated(kind, service_of(request).serving.annotators)
    if kind not in WEIGHTS:
        return await run_in_threadpool(annotate, kind, picture, options)
    if options:
        raise SafelightError(f"{kind} takes no {' and '.join(options)} here; leave them out.")
    return await _estimated(request, kind, picture)


async def _estimated(request: Request, kind: str, picture: Image.Image) -> Image.Image:
    service = service_of(request)
    job, _ = await service.hand_in(lambda: hint_job(kind, picture, service.serving.limits))
    try:
        job = await service.ended(job, request)
        error = failed(job)
        if error is not None:
            raise error
        [made] = await service.pictures(job.id)
    except ClosingError as error:
        raise ClosingError("The server is about to end; come again later.") from error
    finally:
        await service.forget(job.id)
    return reopened(made.content)
