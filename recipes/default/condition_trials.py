"""What a model makes of held-out pictures' conditions: the requests, and the pictures for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from sheets import boxed, written
from torch import Tensor

from safelight.data.folders import PictureItem
from safelight.data.masks import draw_mask
from safelight.data.sources import shrunk
from safelight.eval.pictures import PictureSet
from safelight.pictures import to_image, to_pixels
from safelight.pipelines.beginning import Led
from safelight.pipelines.condition_settings import Condition, ImagePrompt
from safelight.pipelines.conditions import joined
from safelight.pipelines.given import Given, give
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.image_prompts import joined_prompts
from safelight.pipelines.request import Request
from safelight.rng import generator_for
from safelight.types import Box

BATCH, FACTOR = 50, 4
COLUMNS = {"depth": "conditioning_image", "semantic": "semantic"}
"""The maps, and where the rows of `conditions.py` name them."""

MASKS = 77
"""The seed of the masks of inpainting."""


def class_of(item: PictureItem) -> str:
    """The class of a picture."""
    return str(item.extras["class"])


def boxes_of(item: PictureItem) -> tuple[Box, ...]:
    """The boxes of a picture."""
    rows = cast(Sequence[dict[str, object]], item.extras["boxes"])
    edges = [tuple(map(float, cast(Sequence[float], row["box"]))) for row in rows]
    return tuple(
        Box(str(row["label"]), cast(tuple[float, float, float, float], edge))
        for row, edge in zip(rows, edges, strict=True)
    )


def map_of(kind: str, item: PictureItem) -> Path:
    """The file of a picture's map."""
    return item.folder / str(item.extras[COLUMNS[kind]])


def smaller(pixels: Tensor) -> Image.Image:
    """A picture as the training of super-resolution sees it."""
    return Image.fromarray(shrunk(np.array(to_image(pixels)), FACTOR))


def ask(kind: str, item: PictureItem, pixels: Tensor, map_scale: float | None = None) -> Condition:
    """What a kind of condition is told of a picture, a map with a scale of its own."""
    if kind in COLUMNS:
        return Condition(kind, map_of(kind, item), map_scale)
    if kind == "class":
        return Condition(kind, class_of(item))
    if kind == "layout":
        return Condition(kind, boxes_of(item))
    if kind == "low_resolution":
        return Condition(kind, smaller(pixels))
    raise ValueError(f"No such condition to be asked for: {kind!r}.")


def draw_masks(count: int, size: int) -> Tensor:
    """Masks as the training draws them, but none of the whole picture, (n, size, size)."""
    masks: list[Tensor] = []
    generator = generator_for(MASKS, 0)
    while len(masks) < count:
        mask = draw_mask((size, size), generator)[0]
        if not mask.all():
            masks.append(mask)
    return torch.stack(masks) > 0.5


def inputs(kind: str, real: PictureSet) -> Tensor:
    """What was told of each picture, as a picture of that size for a sheet."""
    size = real.pixels.shape[-1]
    if kind == "class":
        return torch.stack([written(class_of(item), size) for item in real.items])
    if kind == "layout":
        return torch.stack([boxed(boxes_of(item), size) for item in real.items])
    if kind == "low_resolution":
        return torch.stack([enlarged(pixels, Image.Resampling.NEAREST) for pixels in real.pixels])
    maps = [Image.open(map_of(kind, item)).convert("RGB") for item in real.items]
    small = [painted.resize((size, size), Image.Resampling.NEAREST) for painted in maps]
    return torch.stack([to_pixels(painted) for painted in small])


def enlarged(pixels: Tensor, resampling: Image.Resampling) -> Tensor:
    """A picture made smaller and as large again."""
    height, width = pixels.shape[-2:]
    return to_pixels(smaller(pixels).resize((width, height), resampling))


def make(
    pipeline: ImagePipeline,
    real: PictureSet,
    kinds: Sequence[str] = (),
    *,
    prompted: bool,
    seen: bool = False,
    map_scale: float | None = None,
) -> Tensor:
    """A picture for each real one, at the model's own settings, from the seeds 0, 1, ...

    It is told the conditions `kinds` of that picture, its prompt if it is `prompted`, and the
    picture itself as an image prompt if that is `seen`. `map_scale` is that of the guidance by a
    map alone.
    """
    settings, rows = pipeline.settle(Request("")), []
    for first in range(0, len(real.items), BATCH):
        places = range(first, min(first + BATCH, len(real.items)))
        led = []
        for place in places:
            item, pixels = real.items[place], real.pixels[place]
            conditions = tuple(ask(kind, item, pixels, map_scale) for kind in kinds)
            pictures = (ImagePrompt(to_image(pixels)),) if seen else ()
            request = Request("", conditions=conditions, image_prompts=pictures)
            led.append(pipeline.read(request))
        shown = [row.image_prompts for row in led if row.image_prompts is not None]
        together = Led(
            conditions=joined([row.conditions for row in led]),
            image_prompts=joined_prompts(shown) if shown else None,
        )
        prompts = [real.prompts[place] if prompted else "" for place in places]
        rows.append(pipeline.sample(prompts, list(places), settings, led=together))
    return torch.cat(rows)


def fill(pipeline: ImagePipeline, real: PictureSet, masks: Tensor) -> Tensor:
    """Each real picture with what is under its mask made anew for its prompt, by the model's
    channels for a mask or, where it has none, by putting back what is kept in each step.
    """
    rows = []
    for place, (pixels, mask) in enumerate(zip(real.pixels, masks, strict=True)):
        hole = Image.fromarray((255 * mask.numpy()).astype(np.uint8))
        given = Given(give("image", to_image(pixels)), give("mask", hole))
        prompt = real.prompts[place]
        settings = pipeline.settle(Request(prompt, given=given, strength=1.0))
        rows.append(pipeline.sample([prompt], [place], settings, given=given))
    return torch.cat(rows)
