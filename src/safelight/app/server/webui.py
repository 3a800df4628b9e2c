"""AUTOMATIC1111's API: txt2img, img2img, and what goes on meanwhile."""

import base64
import io
import json
import time
from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request
from PIL import Image
from pydantic import BaseModel, JsonValue
from starlette.concurrency import run_in_threadpool

from safelight.app.server.admission import Pictures
from safelight.app.server.asked import Asked, in_one_line
from safelight.app.server.records import Job, Picture
from safelight.app.server.refusals import NotHereError
from safelight.app.server.replies import failed, service_of
from safelight.app.server.service import Service
from safelight.app.server.uploads import from_base64, opened, suffix_of
from safelight.app.server.webui_bodies import (
    Img2Img,
    Making,
    Txt2Img,
    asked_of,
    blur_of,
)
from safelight.app.server.webui_control import Units, controls_of, units_in
from safelight.app.server.webui_masks import FILLS, Prepared, prepared
from safelight.app.server.webui_options import options_of
from safelight.errors import SafelightError
from safelight.pipelines.infotext_written import infotext_of
from safelight.pipelines.manifest import Manifest
from safelight.pipelines.picture_files import encode_picture
from safelight.pipelines.webui_names import SAMPLERS

router = APIRouter(prefix="/sdapi/v1", tags=["AUTOMATIC1111"])


class Made(BaseModel):
    """Pictures in base64, the request, and `info`: JSON in a string."""

    images: list[str]
    parameters: dict[str, JsonValue]
    info: str


class ProgressState(BaseModel):
    """What is being done."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str
    job_count: int
    job_timestamp: str
    job_no: int
    sampling_step: int
    sampling_steps: int


class Progress(BaseModel):
    """How far it is: 0 to 1, and the seconds that are left."""

    progress: float
    eta_relative: float
    state: ProgressState
    current_image: str | None = None
    textinfo: str | None = None


@router.post("/txt2img", summary="Pictures of a prompt")
async def txt2img(request: Request, body: Txt2Img) -> Made:
    """Makes pictures and answers once they are there."""
    service = service_of(request)
    with in_one_line():
        asked = asked_of(body, options_of(request))
    units = await run_in_threadpool(_units, service, body, asked, None)
    asked = asked.model_copy(update={"controls": units.controls})
    job = await _done(request, asked, await units.made(request))
    return await _made(service, job, body, None)


@router.post("/img2img", summary="Pictures begun from another")
async def img2img(request: Request, body: Img2Img) -> Made:
    """Makes pictures and answers once they are there."""
    service = service_of(request)
    with in_one_line():
        asked = asked_of(body, options_of(request))
    if len(body.init_images) != 1:
        told = f"One picture is begun from here; got {len(body.init_images)} init_images."
        raise NotHereError(told) if body.init_images else SafelightError(told)

    def read() -> tuple[Prepared, Units]:
        image, mask = (
            None if text is None else opened(from_base64(text, what), what, service.serving.limits)
            for text, what in ((body.init_images[0], "init_images"), (body.mask, "mask"))
        )
        assert image is not None
        ready = prepared(body, image.convert("RGB"), mask, service.serving.limits.pixels)
        return ready, _units(service, body, asked, ready.image)

    ready, units = await run_in_threadpool(read)
    pictures = {**await units.made(request), "image": ready.image}
    update: dict[str, object] = {"image": "image", "strength": body.denoising_strength}
    update |= {"image_scale": body.image_cfg_scale if _edits(service, asked) else None}
    if ready.mask is not None:
        pictures["mask"] = ready.mask
        update |= {"mask": "mask", "mask_blur": blur_of(body)}
        update |= {"mask_fill": FILLS[body.inpainting_fill]}
    asked = asked.model_copy(update=update | {"controls": units.controls})
    job = await _done(request, asked, pictures)
    return await _made(service, job, body, ready if ready.whole is not None else None)


@router.get("/progress", summary="How far it is")
async def progress(request: Request, skip_current_image: bool = False) -> Progress:
    """Of the job that is being done; 0 where there is none."""
    service = service_of(request)
    jobs = await run_in_threadpool(service.store.newest, 20, None, "running")
    waiting = (await run_in_threadpool(service.store.counts)).get("queued", 0)
    if not jobs:
        state = ProgressState(
            job="",
            job_count=waiting,
            job_timestamp="0",
            job_no=0,
            sampling_step=0,
            sampling_steps=0,
        )
        return Progress(progress=0.0, eta_relative=0.0, state=state)
    job = jobs[-1]
    event = service.live.newest.get(job.id)
    place, step, steps = (event.place, event.step, event.steps) if event else (job.made, 0, 0)
    part = min(0.99, (place + (step / steps if steps else 0.0)) / job.count)
    began = job.started or time.time()
    shown = None if event is None or skip_current_image else event.preview
    return Progress(
        progress=part,
        eta_relative=(time.time() - began) * (1 / part - 1) if part else 0.0,
        current_image=shown,
        state=ProgressState(
            job=job.id,
            job_count=job.count + waiting,
            job_timestamp=time.strftime("%Y%m%d%H%M%S", time.localtime(began)),
            job_no=place,
            sampling_step=step,
            sampling_steps=steps,
        ),
    )


@router.post("/interrupt", summary="End the job that is being done")
async def interrupt(request: Request) -> dict[str, JsonValue]:
    """The request that waits for it is answered with the pictures that are there."""
    await _tell_running(service_of(request), "finish")
    return {}


@router.post("/skip", summary="End the picture that is being made")
async def skip(request: Request) -> dict[str, JsonValue]:
    """The job goes on with its next picture."""
    await _tell_running(service_of(request), "skip")
    return {}


async def _tell_running(service: Service, command: str) -> None:
    for job in await run_in_threadpool(service.store.newest, 20, None, "running"):
        service.supervisor.send(command, job.id)


def _edits(service: Service, asked: Asked) -> bool:
    """Whether the model edits by instruction, which image_cfg_scale is for."""
    return "InstructPix2Pix" in service.catalogue.find(asked.model).family


def _units(service: Service, body: Making, asked: Asked, begun_from: Image.Image | None) -> Units:
    """The ControlNets that a body names."""
    units = units_in(body.alwayson_scripts)
    model = service.catalogue.find(asked.model)
    with in_one_line():
        return controls_of(units, model, begun_from, service.serving.limits)


async def _done(request: Request, asked: Asked, pictures: Pictures) -> Job:
    service = service_of(request)
    with in_one_line():
        asked = Asked.model_validate(asked.model_dump())
    job, _ = await service.submit(asked, pictures)
    job = await service.ended(job, request)
    error = failed(job)
    if error is not None and job.state != "cancelled":
        raise error
    return job


async def _made(service: Service, job: Job, body: Making, part: Prepared | None) -> Made:
    """The answer of a job; with a `part`, its pictures are put back into the whole."""
    pictures = await service.pictures(job.id)
    manifests = [Manifest.from_json(one.manifest, "the job's picture") for one in pictures]
    kind = Asked.model_validate_json(job.spec).format
    if part is not None:
        pictures = await run_in_threadpool(_restored, pictures, manifests, part, kind)
    told = body.model_dump()
    if isinstance(body, Img2Img) and not body.include_init_images:
        told |= {"init_images": None, "mask": None}
    sent = pictures if body.send_images else []
    return Made(
        images=[base64.b64encode(one.content).decode() for one in sent],
        parameters=told,
        info=json.dumps(_info(body, job, manifests)),
    )


def _restored(
    pictures: Sequence[Picture], manifests: Sequence[Manifest], part: Prepared, kind: str
) -> list[Picture]:
    """Pictures that are parts, put back into the whole ones."""
    whole: list[Picture] = []
    for picture, manifest in zip(pictures, manifests, strict=True):
        with Image.open(io.BytesIO(picture.content)) as image:
            restored = part.restored(image.convert("RGB"))
        text = str(infotext_of(manifest))
        content = encode_picture(f"x{suffix_of(kind)}", restored, manifest, text)
        whole.append(Picture(content, picture.media, picture.seed, picture.manifest))
    return whole


def _info(body: Making, job: Job, manifests: Sequence[Manifest]) -> dict[str, JsonValue]:
    """What the web UI's `info` says of pictures."""

    def each(of: Callable[[Manifest], JsonValue]) -> list[JsonValue]:
        return [of(manifest) for manifest in manifests]

    first = manifests[0] if manifests else None
    sampler = None if first is None else SAMPLERS.get(first.sampler, first.sampler)
    return {
        "prompt": body.prompt,
        "all_prompts": each(lambda one: one.prompt),
        "negative_prompt": body.negative_prompt,
        "all_negative_prompts": each(lambda one: one.negative),
        "seed": None if first is None else first.seed,
        "all_seeds": each(lambda one: one.seed),
        "subseed": None if first is None else first.subseed,
        "all_subseeds": each(lambda one: one.subseed),
        "subseed_strength": body.subseed_strength,
        "width": None if first is None else first.width,
        "height": None if first is None else first.height,
        "sampler_name": sampler,
        "cfg_scale": None if first is None else first.scale,
        "steps": None if first is None else first.steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "sd_model_name": job.model,
        "denoising_strength": body.denoising_strength,
        "infotexts": each(lambda one: str(infotext_of(one))),
        "clip_skip": None if first is None else first.clip_skip,
        "index_of_first_image": 0,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)),
        "is_using_inpainting_conditioning": False,
    }
