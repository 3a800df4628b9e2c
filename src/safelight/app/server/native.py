"""The native API: jobs that are handed in, watched and fetched."""

import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, JsonValue
from starlette.concurrency import run_in_threadpool

from safelight.app.server.admission import digest_of, with_uploads
from safelight.app.server.asked import Asked
from safelight.app.server.clips import is_clip
from safelight.app.server.grids import axes_of, grid_of
from safelight.app.server.inside_view import InsideView
from safelight.app.server.live import Event
from safelight.app.server.records import Fault, Job, Picture, State
from safelight.app.server.replies import service_of
from safelight.app.server.service import Service

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

Identity = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such job, or no such picture of it."}
}


class PictureView(BaseModel):
    """A picture that is there."""

    place: int
    url: str
    media: str
    seed: int


class ProgressView(BaseModel):
    """How far the picture is that is being made."""

    place: int
    step: int
    steps: int


class GridView(BaseModel):
    """The cells of a grid, whose places go row by row; `url` has them in one picture, once all are
    there.
    """

    axes: list[str] = Field(description="what differs between columns, and between rows")
    columns: list[str] = Field(description="values")
    rows: list[str] = Field(description="values; none where there is one row")
    url: str


class ErrorView(BaseModel):
    """Why a job failed."""

    message: str
    fault: Fault


class JobView(BaseModel):
    """A job as it stands; times are seconds since 1970."""

    id: str
    state: State
    model: str
    count: int
    priority: int
    created: float
    started: float | None
    ended: float | None
    ahead: int | None = Field(description="waiting jobs that come before, while it waits")
    progress: ProgressView | None
    pictures: list[PictureView]
    grid: GridView | None = Field(description="of a job that is one")
    error: ErrorView | None
    asked: dict[str, JsonValue] = Field(description="the request; its pictures by names alone")


class Listing(BaseModel):
    """Jobs, the newest first; `next` is what `before` is to be for those that follow."""

    jobs: list[JobView]
    next: int | None


@router.post("", status_code=202, summary="Hand in a job")
async def submit(
    request: Request,
    response: Response,
    asked: Asked,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> JobView:
    """Takes a job in. With an Idempotency-Key the same request, sent again, gives the same job
    (200 in the place of 202), also after the server was started anew.
    """
    service = service_of(request)
    digest = digest_of(await request.body())
    asked, pictures = await run_in_threadpool(with_uploads, asked, service.serving.limits)
    job, new = await service.submit(asked, pictures, key=idempotency_key, digest=digest)
    response.status_code = 202 if new else 200
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return await view_of(service, job)


@router.get("", summary="List jobs")
async def listed(
    request: Request,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> Listing:
    """Jobs that are kept, the newest first."""
    service = service_of(request)
    jobs = await run_in_threadpool(service.store.newest, limit, before, state)
    views = [await view_of(service, job) for job in jobs]
    return Listing(jobs=views, next=jobs[-1].number if len(jobs) == limit else None)


@router.get("/{identity}", summary="A job as it stands", responses=_NOT_FOUND)
async def show(request: Request, identity: Identity) -> JobView:
    """A job as it stands."""
    service = service_of(request)
    return await view_of(service, await _found(service, identity))


@router.delete("/{identity}", summary="Cancel a job", responses=_NOT_FOUND)
async def cancel(request: Request, identity: Identity) -> JobView:
    """Ends a job that has not ended; pictures that it made stay."""
    service = service_of(request)
    await _found(service, identity)
    job = await service.cancel(identity)
    return await view_of(service, job or await _found(service, identity))


@router.get(
    "/{identity}/events",
    summary="Watch a job",
    response_class=StreamingResponse,
    responses={**_NOT_FOUND, 200: {"content": {"text/event-stream": {}}}},
)
async def events(request: Request, identity: Identity) -> StreamingResponse:
    """Server-sent events until the job has ended: `state` (the job), `progress` (place, step,
    steps, and a preview as PNG in base64 where the job asks for previews) and `picture`.
    """
    service = service_of(request)
    job = await _found(service, identity)
    return StreamingResponse(_told(service, job), media_type="text/event-stream", headers=FRESH)


@router.get(
    "/{identity}/pictures/{place}",
    summary="A picture",
    response_class=Response,
    responses={
        **_NOT_FOUND,
        200: {"content": {"image/png": {}, "image/webp": {}, "video/mp4": {}}},
    },
)
async def picture(
    request: Request, identity: Identity, place: Annotated[int, Field(ge=0, le=2**31)]
) -> Response:
    """A picture's file, with its manifest inside."""
    found = await _picture(service_of(request), identity, place)
    return Response(found.content, media_type=found.media)


@router.get(
    "/{identity}/pictures/{place}/manifest", summary="What made a picture", responses=_NOT_FOUND
)
async def manifest(
    request: Request, identity: Identity, place: Annotated[int, Field(ge=0, le=2**31)]
) -> dict[str, JsonValue]:
    """The manifest that the picture's file holds."""
    found = await _picture(service_of(request), identity, place)
    return json.loads(found.manifest)


@router.get(
    "/{identity}/pictures/{place}/inside",
    summary="What happened while a picture was made",
    responses=_NOT_FOUND,
    response_model=InsideView,
)
async def inside(
    request: Request, identity: Identity, place: Annotated[int, Field(ge=0, le=2**31)]
) -> Response:
    """Latents, what the network expected and where words looked, of a job with `inside`."""
    service = service_of(request)
    await _picture(service, identity, place)
    found = await run_in_threadpool(service.store.inside, identity, place)
    if found is None:
        raise HTTPException(404, f"The job {identity} did not ask for its inside.")
    return Response(found, media_type="application/json")


@router.get(
    "/{identity}/grid",
    summary="A grid in one picture",
    response_class=Response,
    responses={**_NOT_FOUND, 200: {"content": {"image/png": {}}}},
)
async def grid(request: Request, identity: Identity) -> Response:
    """The pictures of a grid under their labels, which `safelight rerun` makes again."""
    service = service_of(request)
    job = await _found(service, identity)
    asked = None if is_clip(job.spec) else Asked.model_validate_json(job.spec)
    if asked is None or asked.x is None:
        raise HTTPException(404, f"The job {identity} is no grid.")
    if job.made < job.count:
        raise HTTPException(404, f"{job.made} of the grid's {job.count} pictures are there.")
    pictures = await service.pictures(identity)
    return Response(await run_in_threadpool(grid_of, asked, pictures), media_type="image/png")


FRESH = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers of what is sent bit by bit."""


async def view_of(service: Service, job: Job) -> JobView:
    """A job as clients see it."""

    def read() -> tuple[int | None, list[PictureView]]:
        ahead = service.store.ahead_of(job) if job.state == "queued" else None
        return ahead, [
            PictureView(place=place, url=url_of(job.id, place), media=media, seed=seed)
            for place, media, seed in service.store.made(job.id)
        ]

    ahead, pictures = await run_in_threadpool(read)
    newest = service.live.newest.get(job.id) if job.state == "running" else None
    error = None
    if job.error is not None:
        error = ErrorView(message=job.error, fault=job.fault or "internal")
    return JobView(
        id=job.id,
        state=job.state,
        model=job.model,
        count=job.count,
        priority=job.priority,
        created=job.created,
        started=job.started,
        ended=job.ended,
        ahead=ahead,
        progress=None if newest is None else _progress(newest),
        pictures=pictures,
        grid=_grid_view(job),
        error=error,
        asked=json.loads(job.spec),
    )


def _grid_view(job: Job) -> GridView | None:
    axes = () if is_clip(job.spec) else axes_of(Asked.model_validate_json(job.spec))
    if not axes:
        return None
    columns, *rows = axes
    return GridView(
        axes=[axis.name for axis in axes],
        columns=list(columns.values),
        rows=list(rows[0].values) if rows else [],
        url=f"/v1/jobs/{job.id}/grid",
    )


def url_of(job: str, place: int) -> str:
    """Where a picture's file is."""
    return f"/v1/jobs/{job}/pictures/{place}"


def sent(event: str, told: object) -> bytes:
    """A server-sent event of a JSON value."""
    return f"event: {event}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n".encode()


async def _told(service: Service, job: Job) -> AsyncGenerator[bytes]:
    last: State | Literal["new"] = "new"
    async for now, event in service.events(job):
        if event is None:
            if now.state == last:
                yield b": still there\n\n"
                continue
            last = now.state
            yield sent("state", (await view_of(service, now)).model_dump())
        elif event.kind == "step":
            preview = {} if event.preview is None else {"preview": event.preview}
            yield sent("progress", {**_progress(event).model_dump(), **preview})
        else:
            yield sent("picture", {"place": event.place, "url": url_of(job.id, event.place)})


def _progress(event: Event) -> ProgressView:
    return ProgressView(place=event.place, step=event.step, steps=event.steps)


async def _found(service: Service, identity: str) -> Job:
    job = await service.job(identity)
    if job is None or job.is_hint:
        raise HTTPException(404, f"There is no job {identity!r}; it may be forgotten by now.")
    return job


async def _picture(service: Service, identity: str, place: int) -> Picture:
    await _found(service, identity)
    found = await service.picture(identity, place)
    if found is None:
        raise HTTPException(404, f"The job {identity} has no picture {place}, or not yet.")
    return found
