"""What a user asks a pipeline for, with nothing left open."""

from typing import TYPE_CHECKING

from safelight.errors import SafelightError
from safelight.pipelines.conditions import sized
from safelight.pipelines.prompt_tags import with_files, without_tags
from safelight.pipelines.request import Request, Settings
from safelight.pipelines.settling import clip_skip_for, settle

if TYPE_CHECKING:
    from safelight.pipelines.image import ImagePipeline


def settled(pipeline: "ImagePipeline", request: Request) -> Settings:
    """The request's settings with the model's defaults in the gaps; errors as
    `ImagePipeline.generate`.
    """
    request.check()
    with_files(request.prompt)  # names that are wrong are told before anything is made
    if request.toward is not None and without_tags(request.toward.prompt)[1]:
        raise SafelightError("A second prompt names no adapters; put them into the first.")
    request = sized(request, pipeline.read(request).conditions, pipeline.folder)
    for other in (pipeline.refiner, pipeline.guide):
        if other is not None:
            clip_skip_for(request, other.pipeline.folder)
    return settle(
        request,
        pipeline.folder,
        pipeline.kind,
        pipeline.name,
        refined=pipeline.refiner is not None,
        by_model=pipeline.guide is not None,
    )
