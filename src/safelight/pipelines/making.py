"""The pictures of a request, one after the other, each with its manifest."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.pipelines.adapting import take_out
from safelight.pipelines.beginning import Batch, Led, Model
from safelight.pipelines.canvas import extended, pasted
from safelight.pipelines.coding import check_finite, finished
from safelight.pipelines.generated import GeneratedImage, to_image
from safelight.pipelines.recording import record
from safelight.pipelines.request import Request, Settings
from safelight.pipelines.sampling import (
    one_line_when_out_of_memory,
    sample_in_two,
    sample_latents,
)
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


def pixels(
    pipeline: "ImagePipeline", batch: Batch, on_step: OnStep | None
) -> Float[Tensor, "b 3 h w"]:
    """The pictures of a batch, as `ImagePipeline.sample`."""
    settings, second = batch.settings, pipeline.refiner
    with one_line_when_out_of_memory(settings), pipeline.with_adapters(), torch.inference_mode():
        model = _computed(pipeline, batch, alone=second is None)
        if second is None:
            z = sample_latents(model, batch, on_step)
        else:
            refiner = _computed(second.pipeline, batch, alone=False)
            z = sample_in_two(model, refiner, second.at, batch, on_step)
        check_finite(z, pipeline.name, pipeline.dtype)
        with model.coding():
            made = finished(model.folder.autoencoder, z, tiled=settings.tiled_decode)
    if settings.mask_blur is not None:  # beside a mask the picture was continued
        made = made[..., : settings.height, : settings.width]
    return made


def _computed(pipeline: "ImagePipeline", batch: Batch, *, alone: bool) -> Model:
    """What sampling needs of a pipeline, with the networks that its engine has for a batch."""
    return pipeline.computing.of(pipeline.model, batch, pipeline.adapters, alone=alone)


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
    made = pipeline.sample(
        [request.prompt],
        [seed],
        settings,
        negative=request.negative,
        given=given,
        led=led,
        on_step=on_step,
    )
    image = to_image(made[0])
    if given.image is not None and given.mask is not None and settings.mask_blur is not None:
        image = pasted(image, given.image, given.mask, settings.mask_blur)
    finished = pipeline.finish(image)
    manifest = record(pipeline, request, led, place, settings, finished)
    return GeneratedImage(finished.image, manifest)
