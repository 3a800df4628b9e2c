"""The native API of clips, which are jobs as pictures are."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from safelight.app.server.admission import digest_of
from safelight.app.server.clips import AskedClip, admitted_clip, with_frames
from safelight.app.server.config import check_unwatched
from safelight.app.server.native import JobView, view_of
from safelight.app.server.records import NewJob
from safelight.app.server.replies import service_of

router = APIRouter(prefix="/v1", tags=["jobs"])


@router.post("/clips", status_code=202, summary="Hand in a clip")
async def submit(
    request: Request,
    response: Response,
    asked: AskedClip,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> JobView:
    """Takes a clip in as a job, which is watched, cancelled and fetched as any other: its one
    picture is the clip's file.
    """
    service = service_of(request)
    check_unwatched(service.serving)
    digest = digest_of(await request.body())
    asked, pictures = await run_in_threadpool(with_frames, asked, service.serving.limits)

    def admit() -> NewJob:
        return admitted_clip(
            *(asked, pictures, service.catalogue, service.serving.limits),
            key=idempotency_key,
            digest=digest,
        )

    job, new = await service.hand_in(admit)
    response.status_code = 202 if new else 200
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return await view_of(service, job)
