"""OpenAI's Images API: generations, edits and variations, and the list of models."""

import base64
import re
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from starlette.concurrency import run_in_threadpool

from safelight.app.server.admission import Pictures
from safelight.app.server.asked import Asked, AskedImagePrompt, Format, Number, Seed, in_one_line
from safelight.app.server.native import FRESH, sent, url_of
from safelight.app.server.records import Job, Picture
from safelight.app.server.replies import failed, service_of
from safelight.app.server.service import Service
from safelight.app.server.uploads import opened
from safelight.config import near
from safelight.errors import SafelightError

router = APIRouter(prefix="/v1", tags=["OpenAI Images"])

_THEIRS = re.compile(r"(gpt-image|dall-e|chatgpt-image)\b.*")  # which mean the default model
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_USAGE: dict[str, JsonValue] = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""Nothing is metered here."""

ResponseFormat = Literal["url", "b64_json"]
Background = Literal["transparent", "opaque", "auto"]
Kind = Literal["image_generation", "image_edit"]


class Wish(BaseModel):
    """What all three take. `quality`, `style`, `moderation`, `user` and `safety_identifier` are
    accepted and change nothing here; `seed`, `steps`, `guidance_scale`, `negative_prompt`,
    `sampler` and `strength` are this server's own.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str = ""
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    size: str | None = Field(None, description="auto, or such as 512x768")
    response_format: ResponseFormat | None = None
    output_format: Format | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    background: Background | None = None
    quality: str | None = None
    style: str | None = None
    moderation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    input_fidelity: str | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    seed: Seed | None = None
    steps: Number | None = None
    guidance_scale: Annotated[float, Field(ge=0)] | None = None
    negative_prompt: str | None = None
    sampler: str | None = None
    strength: Annotated[float, Field(gt=0, le=1)] | None = None


class Prompted(Wish):
    """A wish that says what the picture should show."""

    prompt: str = Field(default="", min_length=1, validate_default=True)


class WishForm(Wish):
    """The same as a form, whose files stand beside its fields."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class PromptedForm(WishForm):
    """The same that says what the picture should show."""

    prompt: str = Field(default="", min_length=1, validate_default=True)


class ImageData(BaseModel):
    """A picture: its file in base64, or where that is."""

    b64_json: str | None = None
    url: str | None = None
    seed: int


class ImagesResponse(BaseModel):
    """Pictures that were made."""

    created: int
    data: list[ImageData]
    output_format: Format
    usage: dict[str, JsonValue]


class ModelView(BaseModel):
    """A model that can be named."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "safelight"
    family: str
    size: int = Field(description="bytes of weights")
    controls: list[str]
    loaded: bool


class ModelListing(BaseModel):
    """The models that can be named."""

    object: Literal["list"] = "list"
    data: list[ModelView]


@router.get("/models", summary="List models")
async def models(request: Request) -> ModelListing:
    """The models that a request may name, the one that is meant by default first."""
    return ModelListing(data=await _models(service_of(request)))


@router.get(
    "/models/{name:path}",
    summary="A model",
    responses={404: {"description": "No model has that name."}},
)
async def model(request: Request, name: str) -> ModelView:
    """A model by its name."""
    for view in await _models(service_of(request)):
        if view.id == name:
            return view
    raise HTTPException(404, f"There is no model {name!r} here.")


@router.post("/images/generations", summary="Make pictures", response_model=ImagesResponse)
async def generations(request: Request, wish: Prompted) -> Response:
    """Pictures of a prompt; with `stream` as server-sent events."""
    return await _answer(request, wish, {}, "image_generation")


@router.post("/images/edits", summary="Edit a picture", response_model=ImagesResponse)
async def edits(
    request: Request,
    wish: Annotated[PromptedForm, Form()],
    image: Annotated[list[UploadFile] | None, File()] = None,
    images: Annotated[list[UploadFile] | None, File(alias="image[]")] = None,
    mask: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """The picture made anew where the mask, or without one the picture itself, is transparent; all
    of it, by `strength`, where neither is. Further pictures speak beside the prompt, for a model
    that brings an image adapter.
    """
    await _check_form(request)
    files = [*(image or ()), *(images or ())]
    pictures = await _read(service_of(request), files, mask)
    return await _answer(request, wish, pictures, "image_edit")


@router.post("/images/variations", summary="Vary a picture", response_model=ImagesResponse)
async def variations(
    request: Request, wish: Annotated[WishForm, Form()], image: Annotated[UploadFile, File()]
) -> Response:
    """Pictures begun from another, with a prompt or without."""
    await _check_form(request)
    pictures = await _read(service_of(request), [image], None)
    pictures.pop("mask", None)
    return await _answer(request, wish, pictures, "image_edit")


async def _check_form(request: Request) -> None:
    """Raises `SafelightError` for a field that is not known; forms are read once and kept."""
    for name in await request.form():
        if name not in (*Wish.model_fields, "image", "image[]", "mask"):
            raise SafelightError(f"Unknown field {name!r}. {near(name, Wish.model_fields)}")


async def _models(service: Service) -> list[ModelView]:
    entries = await run_in_threadpool(service.catalogue.entries)

    def created(place: str) -> int:
        return int(entries[place].file.stat().st_mtime) if entries[place].file.exists() else 0

    return [
        ModelView(
            id=name,
            created=created(name),
            family=entry.family,
            size=entry.size,
            controls=list(entry.controls),
            loaded=entry.place in service.loaded,
        )
        for name, entry in entries.items()
    ]


async def _read(service: Service, files: list[UploadFile], mask: UploadFile | None) -> Pictures:
    """The pictures of a form by the names that a job has for them; errors as `opened`."""
    if not files:
        raise SafelightError("There is no image; send one as image, several as image[].")
    limits = service.serving.limits
    contents = [await file.read() for file in files]
    masking = None if mask is None else await mask.read()

    def read() -> Pictures:
        first, *others = (opened(content, "image", limits) for content in contents)
        pictures = {"image": first.convert("RGB")}
        seen = first if masking is None else opened(masking, "mask", limits)
        if masking is not None and (seen.mode != "RGBA" or seen.size != first.size):
            raise SafelightError(
                f"The mask should have {first.width} x {first.height} pixels, as the image, and be "
                "transparent where that is to be edited."
            )
        if seen.mode == "RGBA":
            pictures["mask"] = seen.getchannel("A").point(_edited)
        return pictures | {f"image-prompt-{i}": other for i, other in enumerate(others)}

    return await run_in_threadpool(read)


_edited = [255] + [0] * 255  # white where alpha is 0


def _asked(wish: Wish, pictures: dict[str, Image.Image]) -> Asked:
    if wish.background == "transparent":
        raise SafelightError("Pictures have no transparent background here; leave it out.")
    if wish.output_compression not in (None, 100):
        raise SafelightError("output_compression is 100 here; leave it out.")
    width, height = _size(wish.size)
    theirs = wish.model is not None and _THEIRS.fullmatch(wish.model)
    prompts = [name for name in pictures if name.startswith("image-prompt")]
    return Asked(
        prompt=wish.prompt,
        negative=wish.negative_prompt or "",
        model=None if theirs else wish.model,
        steps=wish.steps,
        scale=wish.guidance_scale,
        sampler=wish.sampler,
        seed=wish.seed,
        width=width,
        height=height,
        count=wish.n or 1,
        image="image" if "image" in pictures else None,
        mask="mask" if "mask" in pictures else None,
        image_prompts=tuple(AskedImagePrompt(picture=name) for name in prompts),
        strength=wish.strength,
        format=wish.output_format or "png",
        previews=(wish.partial_images or 0) if wish.stream else 0,
    )


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text in (None, "auto"):
        return None, None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise SafelightError(f"size should be auto, or such as 512x768; got {text!r}.")
    return int(match[1]), int(match[2])


async def _answer(request: Request, wish: Wish, pictures: Pictures, kind: Kind) -> Response:
    service = service_of(request)
    with in_one_line():
        asked = _asked(wish, pictures)
    job, _ = await service.submit(asked, pictures)
    if wish.stream:
        return StreamingResponse(
            _streamed(service, job, wish, kind), media_type="text/event-stream", headers=FRESH
        )
    job = await service.ended(job, request)
    error = failed(job)
    if error is not None:
        raise error
    data = [
        _data(picture, wish, f"{str(request.base_url).rstrip('/')}{url_of(job.id, place)}")
        for place, picture in enumerate(await service.pictures(job.id))
    ]
    response = ImagesResponse(
        created=int(job.created), data=data, output_format=wish.output_format or "png", usage=_USAGE
    )
    return JSONResponse(response.model_dump(exclude_none=True))


def _data(picture: Picture, wish: Wish, url: str) -> ImageData:
    if wish.response_format == "url":
        return ImageData(url=url, seed=picture.seed)
    return ImageData(b64_json=base64.b64encode(picture.content).decode(), seed=picture.seed)


async def _streamed(service: Service, job: Job, wish: Wish, kind: Kind) -> AsyncGenerator[bytes]:
    """Partial images as they come, each picture once it is there, and last what went wrong; a
    client that goes away gives the job up.
    """
    told: set[int] = set()
    partial, stands = 0, job
    common = {
        "background": "opaque",
        "quality": "auto",
        "size": wish.size or "auto",
    }

    async def completed(place: int) -> bytes | None:
        picture = None if place in told else await service.picture(job.id, place)
        if picture is None:
            return None
        told.add(place)
        return sent(
            f"{kind}.completed",
            {
                "type": f"{kind}.completed",
                "b64_json": base64.b64encode(picture.content).decode(),
                "created_at": int(time.time()),
                "output_format": wish.output_format or "png",
                "usage": _USAGE,
                "seed": picture.seed,
                **common,
            },
        )

    try:
        async for now, event in service.events(job):
            stands = now
            if event is None:
                yield b": still there\n\n"
            elif event.kind == "picture":
                yield await completed(event.place) or b""
            elif event.preview is not None:
                yield sent(
                    f"{kind}.partial_image",
                    {
                        "type": f"{kind}.partial_image",
                        "b64_json": event.preview,
                        "created_at": int(time.time()),
                        "output_format": "png",
                        "partial_image_index": partial,
                        **common,
                    },
                )
                partial += 1
        for place in range(job.count):
            yield await completed(place) or b""
        error = failed(stands)
        if error is not None or not stands.has_ended:
            line = str(error) if isinstance(error, SafelightError) else stands.error
            line = line or "The job ended without a result."
            yield sent("error", {"error": {"message": line, "type": "server_error"}})
    finally:
        if not stands.has_ended and not service.closing:
            service.cancel_soon(job.id)
