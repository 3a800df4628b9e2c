"""What a model is told of prompts and pictures, as the conditions of its guidance."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.vision import Vision
from safelight.conditioners.image import noised, prepared
from safelight.conditioners.numbers import with_class, with_guidance, with_numbers, with_vector
from safelight.conditioners.text import TextConditioner
from safelight.pipelines.beginning import Batch, Model, seeded
from safelight.pipelines.conditions import with_conditions
from safelight.pipelines.guiding import Conditions
from safelight.pipelines.kind import Kind
from safelight.pipelines.request import Settings
from safelight.pipelines.saying import Saying, Texts, encoded_texts
from safelight.types import Conditioning

_SHOWN = "image prompts"  # among the kinds of conditions

_AESTHETIC, _UNAESTHETIC = 6.0, 2.5
"""The scores that SDXL's refiner is told of the picture wanted, and of that to steer away from."""


def conditions_of(
    model: Model, batch: Batch, said: Sequence[Saying], concat: Tensor | None
) -> list[Conditions]:
    """What a model is told, for each of the sayings."""
    settings, count = batch.settings, len(batch.prompts)
    text = replace(model.text, skip=settings.clip_skip - 1)
    seen = None if model.folder.vision is None else _seen(model, batch, model.folder.vision)
    size = (settings.width, settings.height)
    put_in = with_conditions(model.folder, batch.led.conditions, size, count, model.device)
    scales = {read.condition.kind: read.own_scale for read in batch.led.conditions}
    shown = batch.led.image_prompts
    if shown is not None:
        scales[_SHOWN] = shown.scale
    both = [kind for kind, scale in scales.items() if scale == 1]  # told on both sides
    told: list[Conditions] = []

    def side(conditioning: Conditioning, kinds: Collection[str]) -> Conditioning:
        cond = put_in(replace(_told(model, conditioning, settings), concat=concat), kinds)
        return cond if shown is None else shown.put_in(cond, count, told=_SHOWN in kinds)

    for saying, parts in zip(said, encoded_texts(text, said, settings.prompt_syntax), strict=True):
        pairs = [_sides(model, batch, texts, seen) for texts in parts]
        null = None
        if settings.guidance.perp_neg is not None:
            null = _nothing(text, parts[0][1], count)
            null = side(_sides(model, batch, (null, null), seen)[1], both)
        uncond = pairs[0][1]
        told.append(
            Conditions(
                tuple(side(cond, scales) for cond, _ in pairs),
                side(uncond, both),
                torch.tensor(saying.weights) if len(pairs) > 1 else None,
                null,
                tuple((side(uncond, kinds), scale) for kinds, scale in _links(scales, both)),
            )
        )
    return told


def _links(
    scales: Mapping[str, float | None], both: Sequence[str]
) -> Iterator[tuple[list[str], float]]:
    """For each condition with a scale of its own, the kinds that are told up to it, and the scale;
    from those on that are told on both sides of guidance.
    """
    so_far = list(both)
    for kind, scale in scales.items():
        if scale is not None and scale != 1:
            so_far.append(kind)
            yield list(so_far), scale


def _nothing(text: TextConditioner, like: Conditioning, count: int) -> Conditioning:
    """The null, in as many chunks as a text was read in."""
    empty = text.null(count)
    if empty.context is None or like.context is None:
        return empty
    return text.null(count, like.context.shape[1] // empty.context.shape[1])


def _told(model: Model, cond: Conditioning, settings: Settings) -> Conditioning:
    """With the guidance scale, where the U-Net is told it."""
    if not model.kind.guided:
        return cond
    return with_guidance(cond, settings.scale, model.folder.unet.config)


def _sides(model: Model, batch: Batch, texts: Texts, seen: Float[Tensor, "b v"] | None) -> Texts:
    """What the prompts ask for, and what guidance steers away from, with all that stands beside
    them: the vector of a picture that is `seen`, a noise level, or sizes.
    """
    count, unet, settings = len(batch.prompts), model.folder.unet.config, batch.settings
    cond, uncond = texts
    if seen is not None and model.kind.sees == "alone":
        context = seen[:, None]  # one token
        return Conditioning(context=context), Conditioning(context=torch.zeros_like(context))
    if seen is not None:
        return with_vector(cond, seen), with_vector(uncond, torch.zeros_like(seen))
    if model.kind.beside == "low resolution":
        level = settings.noise_level or 0
        return with_class(cond, level, unet), with_class(uncond, level, unet)
    if model.kind.numbers == "none":
        return cond, uncond
    wanted, avoided = numbers_of(model.kind, settings.width, settings.height)

    def rows(numbers: list[float]) -> Float[Tensor, "b k"]:
        return torch.tensor([numbers] * count, dtype=torch.float32, device=model.device)

    return with_numbers(cond, rows(wanted), unet), with_numbers(uncond, rows(avoided), unet)


def numbers_of(kind: Kind, width: int, height: int) -> tuple[list[float], list[float]]:
    """What a model with numbers is told of a whole picture of a size that is wanted, and of one to
    steer away from.
    """
    size = [float(height), float(width)]
    aesthetics = kind.numbers == "aesthetics"
    wanted, avoided = (
        [*size, 0.0, 0.0, *([score] if aesthetics else size)]
        for score in (_AESTHETIC, _UNAESTHETIC)
    )
    return wanted, avoided


def _seen(model: Model, batch: Batch, vision: Vision) -> Float[Tensor, "b v"]:
    """The vector of the given picture, once for each picture to be made; noised for unCLIP."""
    image, count = batch.given.image, len(batch.seeds)
    assert image is not None  # which `Kind.check` sees to
    pixels = prepared(image.picture, vision.preparation)
    vector = vision.tower(pixels.to(model.device, model.dtype)).float().expand(count, -1)
    if vision.noising is None:
        return vector
    level = batch.settings.noise_level or 0
    sigma = vision.noising.scheduler.schedule().t_to_sigma(torch.tensor(float(level))).item()
    noise = seeded(batch, model.device)(tuple(vector.shape), 0)
    return noised(vector, vision.noising.normalizer, sigma, level, noise).float()
