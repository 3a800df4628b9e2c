"""What a picture's file tells of its making, as settings that a request may have."""

import io
import json
from collections.abc import Collection

from fastapi import APIRouter, Request
from PIL import Image
from pydantic import BaseModel, JsonValue
from starlette.concurrency import run_in_threadpool

from safelight.app.server.asked import Strict, Upload
from safelight.app.server.replies import service_of
from safelight.app.server.uploads import check_header, from_base64, opened
from safelight.pipelines import infotext
from safelight.pipelines.infotext_request import asked_in
from safelight.pipelines.manifest import Manifest
from safelight.pipelines.picture_files import Texts, texts_in

router = APIRouter(prefix="/v1", tags=["the page's"])


class Asking(Strict):
    """A picture's file."""

    picture: Upload


class Settings(BaseModel):
    """Fields of `POST /v1/jobs`; null is the model's own choice. The seed is text, for its numbers
    are larger than those that JavaScript tells apart.
    """

    prompt: str
    negative: str
    model: str | None
    sampler: str | None
    schedule: str | None
    steps: int | None
    scale: float | None
    width: int | None
    height: int | None
    seed: str


class Told(BaseModel):
    """What a picture tells; all is null of one that tells nothing. `notes` are lines on what the
    settings leave out.
    """

    settings: Settings | None
    manifest: dict[str, JsonValue] | None
    notes: list[str]


@router.post("/read", summary="What made a picture")
async def read(request: Request, asking: Asking) -> Told:
    """The settings in a picture that safelight or AUTOMATIC1111's web UI made."""
    service = service_of(request)

    def look() -> Told:
        content = from_base64(asking.picture, "picture")
        limits = service.serving.limits
        check_header(content, "picture", limits)
        opened(content, "picture", limits)  # which tells a damaged one
        with Image.open(io.BytesIO(content)) as image:
            image.load()  # for texts behind the pixels
            texts = texts_in(image)
        return _told(texts, service.catalogue.entries())

    return await run_in_threadpool(look)


def _told(texts: Texts, models: Collection[str]) -> Told:
    if texts.manifest is not None:
        return _of_manifest(Manifest.from_json(texts.manifest, "The picture"), models)
    if texts.infotext is not None:
        return _of_infotext(infotext.parse(texts.infotext), models)
    return Told(settings=None, manifest=None, notes=[])


def _of_manifest(manifest: Manifest, models: Collection[str]) -> Told:
    notes = [
        f"The {what} is not in the file; give it again."
        for what, there in (
            ("picture it was begun from", bool(manifest.given)),
            ("picture of its control", bool(manifest.controls)),
            ("picture beside its prompt", manifest.image_prompts is not None),
        )
        if there
    ]
    return Told(
        settings=Settings(
            prompt=manifest.prompt,
            negative=manifest.negative,
            model=_known(manifest.model, models, notes),
            sampler=manifest.sampler,
            schedule=manifest.schedule,
            steps=manifest.steps,
            scale=manifest.scale,
            width=manifest.width,
            height=manifest.height,
            seed=str(manifest.seed),
        ),
        manifest=json.loads(manifest.to_json()),
        notes=notes,
    )


def _of_infotext(text: infotext.Infotext, models: Collection[str]) -> Told:
    asked = asked_in(text)
    request, notes = asked.request, list(asked.notes)
    named = text.parameters.get("Model")
    return Told(
        settings=Settings(
            prompt=request.prompt,
            negative=request.negative,
            model=None if named is None else _known(named, models, notes),
            sampler=request.sampler,
            schedule=request.schedule,
            steps=request.steps,
            scale=request.scale,
            width=request.width,
            height=request.height,
            seed=str(request.seed),
        ),
        manifest=None,
        notes=notes,
    )


def _known(model: str, models: Collection[str], notes: list[str]) -> str | None:
    """The model by its name here, of a name or a place; None, and a line, where it is not here."""
    for name in (model, model.replace("\\", "/").rpartition("/")[2]):
        if name in models:
            return name
    notes.append(f"The model {model!r} is not here.")
    return None
