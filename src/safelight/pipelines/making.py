"""The pictures of a request, one after the other, each with its manifest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.pipelines.adapting import take_out
from safelight.pipelines.canvas import extended, pasted
from safelight.pipelines.conditions import ReadCondition
from safelight.pipelines.controls import ReadControl
from safelight.pipelines.generated import GeneratedImage, to_image
from safelight.pipelines.recording import record
from safelight.pipelines.request import Request, Settings
from safelight.types import OnStep

if TYPE_CHECKING:
    from safelight.pipelines.image import ImagePipeline


@dataclass(frozen=True)
class Led:
    """What a request names and was read once, for all its pictures."""

    controls: Sequence[ReadControl]
    conditions: Sequence[ReadCondition]


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
        led = Led(
            pipeline.read_controls(request.controls), pipeline.read_conditions(request.conditions)
        )
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
        controls=led.controls,
        conditions=led.conditions,
        on_step=on_step,
    )
    image = to_image(pixels[0])
    if given.image is not None and given.mask is not None and settings.mask_blur is not None:
        image = pasted(image, given.image, given.mask, settings.mask_blur)
    manifest = record(pipeline, request, led.controls, led.conditions, place, settings, image)
    return GeneratedImage(image, manifest)
