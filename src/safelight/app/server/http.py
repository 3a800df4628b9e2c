"""The app: every API over one service, and the layers around them."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Literal

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel

from safelight import __version__
from safelight.app.server import (
    annotating,
    native,
    native_clips,
    offering,
    openai_images,
    page,
    reading,
    streaming,
    trainings,
    webui,
    webui_control,
    webui_options,
    webui_pictures,
)
from safelight.app.server.guard import BoundedBody, Guard
from safelight.app.server.logs import Logged
from safelight.app.server.replies import reply, service_of, with_errors
from safelight.app.server.service import Service

health = APIRouter(tags=["health"])


class Health(BaseModel):
    """That the server is there."""

    status: Literal["ok"] = "ok"


def app_of(service: Service) -> FastAPI:
    """The app of a service, which runs while the app does."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="safelight",
        version=__version__,
        summary="Pictures by latent diffusion.",
        lifespan=lifespan,
        docs_url=None,  # whose scripts come from elsewhere; the page has its own
        redoc_url=None,
    )
    app.state.service = service
    for router in (
        *(health, page.router, native.router, native_clips.router, openai_images.router),
        *(offering.router, reading.router, annotating.router, streaming.router, trainings.router),
        *(webui.router, webui_pictures.router, webui_control.router, webui_options.router),
        webui_options.rest,  # last, for it answers whatever is left
    ):
        app.include_router(router)
    with_errors(app)
    limits = service.serving.limits
    app.add_middleware(BoundedBody, most=limits.body)
    app.add_middleware(Guard, serving=service.serving)
    app.add_middleware(Logged, metrics=service.metrics)
    return app


@health.get("/healthz", summary="Whether the server is there")
def healthz() -> Health:
    """Answers as long as the server does."""
    return Health()


@health.get(
    "/readyz",
    summary="Whether jobs are being done",
    response_model=Health,
    responses={503: {"description": "The worker is not there, or loads its model."}},
)
def readyz(request: Request) -> Health | Response:
    """Whether the worker is there and has loaded its model."""
    service = service_of(request)
    if service.closing or not service.supervisor.ready:
        return reply(503, "The worker is not ready.")
    return Health()


@health.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def metrics(request: Request) -> Response:
    """Figures in Prometheus' text format."""
    service = service_of(request)
    service.metrics.worker_deaths.set(service.supervisor.deaths)
    service.metrics.watchers.set(service.live.watchers)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")
