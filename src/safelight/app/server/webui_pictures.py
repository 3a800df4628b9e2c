"""What the web UI does with pictures alone: what made them, and their enlarging."""

import base64
import io
from dataclasses import asdict

from fastapi import APIRouter, Request
from PIL import Image, ImageOps
from pydantic import Field, JsonValue
from starlette.concurrency import run_in_threadpool

from safelight.app.server.config import Limits
from safelight.app.server.refusals import NotHereError
from safelight.app.server.replies import service_of
from safelight.app.server.uploads import check_header, from_base64, opened, png
from safelight.app.server.webui_bodies import Webui
from safelight.errors import SafelightError
from safelight.pipelines.infotext import parse
from safelight.pipelines.picture_files import texts_in

router = APIRouter(prefix="/sdapi/v1", tags=["AUTOMATIC1111"])

RESAMPLINGS = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
"""The upscalers of extras by their names there; "None" leaves a picture as it is."""


class PngInfo(Webui):
    """A picture that tells what made it."""

    image: str


class Extras(Webui):
    """How pictures are to be enlarged."""

    resize_mode: int = Field(default=0, ge=0, le=1)
    gfpgan_visibility: float = 0.0
    codeformer_visibility: float = 0.0
    upscaling_resize: float = Field(default=2.0, gt=0, le=64)
    upscaling_resize_w: int = Field(default=512, ge=1, le=32768)
    upscaling_resize_h: int = Field(default=512, ge=1, le=32768)
    upscaling_crop: bool = True
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: float = 0.0


class ExtraImage(Extras):
    """One picture to be enlarged."""

    image: str


class NamedImage(Webui):
    """One of several."""

    data: str
    name: str = ""


class ExtraImages(Extras):
    """Several pictures to be enlarged."""

    images: list[NamedImage] = Field(default=[], max_length=64, alias="imageList")


@router.post("/png-info", summary="What made a picture")
async def png_info(request: Request, body: PngInfo) -> dict[str, JsonValue]:
    """The infotext that a picture holds, and its parameters."""
    limits = service_of(request).serving.limits

    def read() -> dict[str, JsonValue]:
        content = from_base64(body.image, "image")
        check_header(content, "image", limits)
        opened(content, "image", limits)  # which tells a damaged one
        with Image.open(io.BytesIO(content)) as image:
            image.load()  # for texts behind the pixels
            texts = texts_in(image)
        if texts.infotext is None:
            return {"info": "", "items": {}, "parameters": {}}
        told = asdict(parse(texts.infotext))
        parameters = {"Prompt": told["prompt"], "Negative prompt": told["negative"]}
        return {
            "info": texts.infotext,
            "items": {"parameters": texts.infotext},
            "parameters": parameters | told["parameters"],
        }

    return await run_in_threadpool(read)


@router.post("/extra-single-image", summary="Enlarge a picture")
async def extra_single_image(request: Request, body: ExtraImage) -> dict[str, str]:
    """The picture by Lanczos or its nearest pixels."""
    limits = service_of(request).serving.limits
    image = await run_in_threadpool(_enlarged, body, body.image, limits)
    return {"html_info": "", "image": image}


@router.post("/extra-batch-images", summary="Enlarge pictures")
async def extra_batch_images(request: Request, body: ExtraImages) -> dict[str, JsonValue]:
    """The pictures by Lanczos or their nearest pixels."""
    limits = service_of(request).serving.limits
    images: list[JsonValue] = [
        await run_in_threadpool(_enlarged, body, one.data, limits) for one in body.images
    ]
    return {"html_info": "", "images": images}


def base64_of(image: Image.Image) -> str:
    """A picture as PNG in base64, without the head of a URL."""
    return base64.b64encode(png(image)).decode()


def _enlarged(body: Extras, text: str, limits: Limits) -> str:
    if body.gfpgan_visibility > 0 or body.codeformer_visibility > 0:
        raise NotHereError("Restoring of faces is not here; leave its visibility at 0.")
    if body.upscaler_2 != "None" and body.extras_upscaler_2_visibility > 0:
        raise NotHereError("A second upscaler is not here; leave upscaler_2 out.")
    image = opened(from_base64(text, "image"), "image", limits)
    if body.upscaler_1 == "None":
        return base64_of(image)
    resampling = RESAMPLINGS.get(body.upscaler_1)
    if resampling is None:
        raise NotHereError(
            f"The upscaler {body.upscaler_1!r} is not here; there are None, "
            f"{', '.join(RESAMPLINGS)}."
        )
    if body.resize_mode == 0:
        size = tuple(max(1, int(side * body.upscaling_resize)) for side in image.size)
    else:
        size = (body.upscaling_resize_w, body.upscaling_resize_h)
    width, height = size
    if width * height > limits.pixels:
        raise SafelightError(f"{limits.pixels} pixels are the most; ask for a smaller picture.")
    if body.resize_mode == 1 and body.upscaling_crop:
        return base64_of(ImageOps.fit(image, (width, height), resampling))
    return base64_of(image.resize((width, height), resampling))
