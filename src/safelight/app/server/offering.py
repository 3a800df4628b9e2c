"""What the server offers, for a page that lets its user choose."""

from importlib.util import find_spec
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from safelight import __version__
from safelight.app.server.catalogue import Entry
from safelight.app.server.replies import service_of
from safelight.checkpoints.folder import DEFAULTS, Defaults
from safelight.config import from_dict, read_json
from safelight.diffusion.samplers import SAMPLERS
from safelight.diffusion.schedules import SCHEDULES
from safelight.errors import SafelightError
from safelight.pipelines.annotate import makeable
from safelight.pipelines.prompt_tags import known_adapters

router = APIRouter(prefix="/v1", tags=["the page's"])


class OfferedModel(BaseModel):
    """A model, what it makes, and how it is best used where it says so."""

    name: str
    family: str
    size: int
    controls: tuple[str, ...]
    pictures: bool
    clips: bool
    sampler: str | None
    steps: int | None
    scale: float | None
    width: int | None
    height: int | None


class OfferedLimits(BaseModel):
    """The most that one request may ask for."""

    pixels: int
    given_pixels: int
    count: int
    steps: int
    prompt: int
    frames: int


class Offer(BaseModel):
    """Names that requests may use; the first model is meant where none is named."""

    version: str
    models: list[OfferedModel]
    adapters: list[str]
    samplers: list[str]
    schedules: list[str]
    annotators: list[str]
    clip_formats: list[Literal["mp4", "webp"]]
    trainings: bool  # whether it shows any, by `--runs`
    limits: OfferedLimits


@router.get("/offer", summary="What there is to choose from")
async def offer(request: Request) -> Offer:
    """Models, adapters, samplers, schedules, annotators and limits."""
    service = service_of(request)
    limits = service.serving.limits

    def listed() -> tuple[list[OfferedModel], list[str]]:
        models = [_offered(entry) for entry in service.catalogue.entries().values()]
        return models, [file.stem for file in known_adapters()]

    models, adapters = await run_in_threadpool(listed)
    return Offer(
        version=__version__,
        models=models,
        adapters=adapters,
        samplers=list(SAMPLERS),
        schedules=list(SCHEDULES),
        annotators=list(makeable(service.serving.annotators)),
        clip_formats=["mp4", "webp"] if find_spec("av") else ["webp"],
        trainings=service.serving.runs is not None,
        limits=OfferedLimits(
            pixels=limits.pixels,
            given_pixels=limits.given_pixels,
            count=limits.count,
            steps=limits.steps,
            prompt=limits.prompt,
            frames=limits.frames,
        ),
    )


def _offered(entry: Entry) -> OfferedModel:
    best = _defaults(entry)
    return OfferedModel(
        name=entry.name,
        family=entry.family,
        size=entry.size,
        controls=entry.controls,
        pictures=entry.makes_pictures,
        clips=entry.makes_clips,
        sampler=best.sampler,
        steps=best.steps,
        scale=best.scale,
        width=best.width,
        height=best.height,
    )


def _defaults(entry: Entry) -> Defaults:
    """How a model says that it is best used; nothing where it does not, or cannot be read."""
    file = entry.file / DEFAULTS
    try:
        return from_dict(Defaults, read_json(file), DEFAULTS) if file.is_file() else Defaults()
    except SafelightError:
        return Defaults()
