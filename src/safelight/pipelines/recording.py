"""What made a picture, written down as its manifest."""

from typing import TYPE_CHECKING

import torch

from safelight.pipelines.beginning import Led
from safelight.pipelines.find import autoencoder_title
from safelight.pipelines.finishing import Finished
from safelight.pipelines.manifest import Manifest, pixel_digest, used_pictures
from safelight.pipelines.provenance import library_versions, machine_of
from safelight.pipelines.request import Request, Settings

if TYPE_CHECKING:
    from safelight.pipelines.image import ImagePipeline


def record(
    pipeline: "ImagePipeline",
    request: Request,
    led: Led,
    place: int,
    settings: Settings,
    finished: Finished,
) -> Manifest:
    """The manifest of picture `place` of a request, which was just made."""
    swapped = pipeline.folder.swapped
    return Manifest(
        prompt=request.prompt,
        negative=request.negative,
        seed=request.seeds_at(place)[0],
        steps=settings.steps,
        scale=settings.scale,
        sampler=settings.sampler,
        width=settings.width,
        height=settings.height,
        model=pipeline.name,
        weights=dict(pipeline.weights),
        precision=str(pipeline.dtype).removeprefix("torch."),
        device=pipeline.device,
        machine=machine_of(pipeline.device),
        threads=torch.get_num_threads(),
        pixels=pixel_digest(finished.image),
        place=place,
        count=request.count,
        versions=library_versions(),
        configuration=dict(pipeline.configuration),
        adapters=pipeline.adapters,
        embeddings=pipeline.embeddings,
        given=used_pictures(request.given),
        strength=settings.strength,
        image_scale=settings.image_scale,
        noise_level=settings.noise_level,
        mask_blur=settings.mask_blur,
        mask_fill=settings.mask_fill,
        outpaint=request.outpaint,
        hires=settings.hires,
        tiled_decode=settings.tiled_decode,
        schedule=settings.schedule,
        sigmas=settings.sigmas,
        windows=settings.windows,
        prompt_syntax=settings.prompt_syntax,
        clip_skip=settings.clip_skip,
        rng=settings.rng,
        subseed=settings.subseed,
        subseed_strength=settings.subseed_strength,
        refiner=None if pipeline.refiner is None else pipeline.refiner.used,
        guidance=settings.guidance,
        toward=settings.toward,
        engine=pipeline.engine,
        storage=pipeline.storage,
        quality=settings.quality,
        token_merging=settings.token_merging,
        guide=None if pipeline.guide is None else pipeline.guide.used,
        vae="" if swapped is None else autoencoder_title(swapped),
        controls=tuple(control.used((settings.width, settings.height)) for control in led.controls),
        conditions=tuple(condition.used for condition in led.conditions),
        watermark=finished.watermark,
        safety=finished.safety,
        image_prompts=None if led.image_prompts is None else led.image_prompts.used,
    )
