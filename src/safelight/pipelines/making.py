"""The pictures of a request, one after the other, each with its manifest."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.pipelines.adapting import take_out
from safelight.pipelines.beginning import Led
from safelight.pipelines.canvas import extended, pasted
from safelight.pipelines.generated import GeneratedImage, to_image
from safelight.pipelines.recording import record
from safelight.pipelines.request import Request, Settings
from safelight.types import OnStep

if TYPE_CHECKING:
    from safelight.pipelines.image import ImagePipeline


def pictures(
    pipeline: "ImagePipeline",
    request: Request,
    files: Mapping[Path, float],
    settings: Settings,
    on_step: OnStep | None,
) -> Iterator[GeneratedImage]:
    """The pictures of a request, with the adapters in `files`, by their strengths, for these
    pictures only.
    """
    before = pipeline.adapters
    try:
        for file, strength in files.items():
            pipeline.adapt(file, strength)
        led = pipeline.read(request)
        for place in range(request.count):
            yield _picture(pipeline, request, led, place, settings, on_step)
    finally:
        take_out(pipeline.folder, pipeline.adapters[len(before) :])
        pipeline.adapters = before


def _picture(
    pipeline: "ImagePipeline",
    request: Request,
    led: Led,
    place: int,
    settings: Settings,
    on_step: OnStep | None,
) -> GeneratedImage:
    seed, subseed = request.seeds_at(place)
    settings = replace(settings, subseed=subseed)
    given = extended(request.given, request.outpaint)
    pixels = pipeline.sample(
        [request.prompt],
        [seed],
        settings,
        negative=request.negative,
        given=given,
        led=led,
        on_step=on_step,
    )
    image = to_image(pixels[0])
    if given.image is not None and given.mask is not None and settings.mask_blur is not None:
        image = pasted(image, given.image, given.mask, settings.mask_blur)
    finished = pipeline.finish(image)
    manifest = record(pipeline, request, led, place, settings, finished)
    return GeneratedImage(finished.image, manifest)
