"""A picture, and where each word of its prompt looked while it was made."""

from typing import TYPE_CHECKING

from torch import Tensor

from safelight.errors import SafelightError
from safelight.pipelines.attention_maps import AttentionMaps
from safelight.pipelines.generated import GeneratedImage
from safelight.pipelines.request import Request
from safelight.pipelines.watching import Watch
from safelight.types import OnStep

if TYPE_CHECKING:
    from safelight.pipelines.image import ImagePipeline


def attention(
    pipeline: "ImagePipeline", request: Request, on_step: OnStep | None = None
) -> tuple[GeneratedImage, AttentionMaps]:
    """Makes a picture and records the U-Net's cross-attention to the prompt, the refiner's aside.

    The picture is the same bits as by engine torch. Errors as `ImagePipeline.generate`, and for
    what cannot be watched: several pictures, image prompts, windows, and what `Watch.begin`
    refuses.
    """
    for here, what in (
        (request.count != 1, "several pictures"),
        (bool(request.image_prompts), "image prompts"),
        (request.tiled_diffusion, "tiled diffusion"),
        (request.quality != "exact", f"quality {request.quality}"),
        (request.token_merging > 0, "merged tokens"),
    ):
        if here:
            raise SafelightError(f"Attention cannot be recorded with {what}; leave them out.")
    watch = Watch()

    def ended(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        watch(step, sigma, x, denoised)
        if on_step is not None:
            on_step(step, sigma, x, denoised)

    before = pipeline.watch
    pipeline.watch = watch
    try:
        [picture] = pipeline.each(request, ended)
    finally:
        pipeline.watch = before
    size = (picture.image.height, picture.image.width)
    return picture, AttentionMaps(watch.words, tuple(watch.steps), size)
