"""A picture with what happened while it was made: its latents, what the model expected, and where
the words of its prompt looked.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from safelight.errors import SafelightError
from safelight.pictures import to_pixels
from safelight.pipelines.attention import attention
from safelight.pipelines.attention_maps import AttentionMaps
from safelight.pipelines.generated import GeneratedImage
from safelight.pipelines.latent_colours import latent_colours
from safelight.pipelines.previews import Previewer
from safelight.pipelines.request import Request
from safelight.types import OnStep

if TYPE_CHECKING:
    from safelight.pipelines.image import ImagePipeline


@dataclass(frozen=True)
class InsideStep:
    """What a step left.

    Attributes:
        step: its place among all steps of the picture.
        sigma: the noise level that it began at.
        latent: x behind the step as colours, one for each place of the latent.
        denoised: likewise the x0 that the network expected, guided.
        picture: that x0, decoded.
    """

    step: int
    sigma: float
    latent: Image.Image
    denoised: Image.Image
    picture: Image.Image


@dataclass(frozen=True)
class Inside:
    """A picture, some of its steps, and the attention in all of them."""

    picture: GeneratedImage
    steps: tuple[InsideStep, ...]
    maps: AttentionMaps


def look_inside(
    pipeline: "ImagePipeline",
    request: Request,
    most: int,
    previewer: Previewer,
    on_step: OnStep | None = None,
) -> Inside:
    """Makes a picture and keeps `most` of its steps, evenly spread, the last and, of two or more,
    the first among them; the picture is the same bits as by engine torch. Errors as `attention`.
    """
    if most < 1:
        raise SafelightError(f"The number of steps to keep should be 1 or more, got {most}.")
    total = pipeline.settle(request).total_steps
    gaps = min(most, total) - 1
    chosen = {total - 1} | {round(i * (total - 1) / gaps) for i in range(gaps)}
    kept: list[tuple[int, float, Tensor, Tensor]] = []
    done = 0

    def keep(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        nonlocal done
        if done in chosen:
            kept.append((done, sigma, x[0].float().cpu(), denoised[0].float().cpu()))
        done += 1
        if on_step is not None:
            on_step(step, sigma, x, denoised)

    picture, maps = attention(pipeline, request, keep)
    pictures = [previewer(denoised[None])[0] for *_, denoised in kept]
    colours = latent_colours([denoised for *_, denoised in kept], [to_pixels(p) for p in pictures])
    steps = tuple(
        InsideStep(step, sigma, colours(x), colours(denoised), shown)
        for (step, sigma, x, denoised), shown in zip(kept, pictures, strict=True)
    )
    return Inside(picture, steps, maps)
