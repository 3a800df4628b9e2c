"""What a user leaves open, filled by the model and by the pictures that are given."""

from dataclasses import replace
from typing import TypeVar

from safelight.checkpoints.folder import Folder
from safelight.checkpoints.tables.schedulers import check_class
from safelight.conditioners.prompt_grammar import parse
from safelight.diffusion.samplers import sampler_name, schedule_in
from safelight.diffusion.schedules import check_sigmas, schedule_name
from safelight.errors import SafelightError
from safelight.models.classes import ClassReader
from safelight.models.clip import ClipText
from safelight.models.merged_tokens import finest_transformers
from safelight.models.tiling import needs_tiles
from safelight.pipelines.canvas import extended
from safelight.pipelines.choices import MaskFill, PromptSyntax, Quality
from safelight.pipelines.given import size_for
from safelight.pipelines.guidance_settings import GUIDE_SCALE, Guidance
from safelight.pipelines.kind import Kind
from safelight.pipelines.request import (
    Request,
    Settings,
    Toward,
    Windows,
    check_multiple,
)
from safelight.pipelines.settling_guidance import check_guidance

_BLURRED = 128  # 4 pixels at 512, as in AUTOMATIC1111's web UI

T = TypeVar("T")

_AUTOMATIC = "automatic"  # AUTOMATIC1111's word for the model's own schedule
_FILLED_STRENGTH = 0.8  # of what fills a mask; at 1 the noise hides it
_IMAGE_SCALE, _NOISE_LEVEL, _VECTOR_LEVEL = 1.5, 20, 0  # as diffusers' pipelines take them


def settle(
    request: Request,
    folder: Folder,
    kind: Kind,
    name: str,
    *,
    refined: bool,
    by_model: bool = False,
) -> Settings:
    """The settings of a request, with nothing left open; `refined` if a second model goes on,
    `by_model` if a weaker one guides.

    Raises `SafelightError` for what this model cannot do.
    """
    request.check()
    if kind.sees == "alone" and (request.prompt or request.negative):
        raise SafelightError(f"{name} makes pictures from an image alone; leave the prompt out.")
    given = extended(request.given, request.outpaint)
    kind.check(given, name)
    if refined and (given.parts or request.hires):
        raise SafelightError(
            "A refiner goes with pictures from a prompt alone; leave image and hires out."
        )
    if refined and by_model:
        raise SafelightError("A guide is not of the refiner's kind; take one of the two.")
    defaults, factor = folder.defaults, folder.autoencoder.factor
    request = replace(request, given=given)
    width, height = _size(request, folder, kind)
    sampler = request.sampler or defaults.sampler or folder.scheduler.sampler
    check_class(sampler, folder.scheduler.levels)
    settings = Settings(
        steps=_first(_steps(request), defaults.steps, kind.steps),
        scale=_first(_highest(request), request.scale, defaults.scale, kind.scale),
        sampler=sampler_name(sampler),
        width=width,
        height=height,
        strength=_strength(request, kind),
        image_scale=_image_scale(request, kind),
        noise_level=_noise_level(request, folder, kind),
        mask_blur=_mask_blur(request, width, height),
        mask_fill=_mask_fill(request),
        hires=request.hires,
        tiled_decode=_tiled_decode(request, folder, width, height),
        schedule=_schedule(request, sampler, kind),
        sigmas=request.sigmas,
        windows=_windows(request, folder),
        prompt_syntax=_syntax(request, folder, kind),
        clip_skip=clip_skip_for(request, folder),
        rng=request.rng,
        subseed=request.subseed,
        subseed_strength=request.subseed_strength,
        guidance=_guidance(request, by_model=by_model),
        toward=_toward(request, folder),
        quality=_quality(request),
        token_merging=_token_merging(request, folder),
    )
    check_guidance(request, settings, folder, kind, by_model=by_model)
    if given.mask is None:  # beside a mask the picture is continued to a multiple
        check_multiple("width", settings.width, factor)
        check_multiple("height", settings.height, factor)
    _check_strength(settings.steps, settings.strength)
    if settings.hires is not None:
        if kind.beside != "nothing" or given.mask is not None:
            raise SafelightError(
                f"hires goes with a prompt, or an image to begin from, and no mask, depth or other "
                f"channels; {name} is given more. Leave hires out."
            )
        if request.sigmas is not None and settings.hires.steps not in (None, settings.steps):
            raise SafelightError("hires_steps does not go with sigmas; leave one of them out.")
        _check_strength(settings.hires.steps or settings.steps, settings.hires.strength)
    scheduler = folder.scheduler.with_sampler(settings.sampler)
    levels = scheduler.with_levels(settings.schedule, settings.sigmas)
    levels.sigmas(settings.steps)
    if settings.hires is not None and settings.hires.steps is not None:
        levels.sigmas(settings.hires.steps)
        if settings.guidance.scales is not None:
            settings.guidance.scales.check(settings.hires.steps)
    return settings


def _steps(request: Request) -> int | None:
    """The steps asked for, by their number or by noise levels."""
    if request.sigmas is None:
        return request.steps
    check_sigmas(request.sigmas)
    return len(request.sigmas) - 1 if request.steps is None else request.steps


def _schedule(request: Request, sampler: str, kind: Kind) -> str | None:
    """The schedule asked for, also by the end of the sampler's name ("DPM++ 2M Karras"); None for
    the model's own. "ays" is the table of the model's kind.
    """
    asked = request.sampler is not None or request.sigmas is None  # a default gives way to sigmas
    named = schedule_in(sampler) if asked else None
    if request.schedule is None or request.schedule.lower() == _AUTOMATIC:
        name = named
    else:
        name = schedule_name(request.schedule)
        if request.sampler is not None and named not in (None, name):
            raise SafelightError(
                f"The sampler {sampler!r} names the schedule {named}, and {name} is asked for; "
                "leave one of them out."
            )
    return "ays_sdxl" if name == "ays" and kind.numbers != "none" else name


def _highest(request: Request) -> float | None:
    scales = request.guidance.scales
    return None if scales is None else max(scales.values)


def _size(request: Request, folder: Folder, kind: Kind) -> tuple[int, int]:
    """Width and height: asked for, else the given picture's, else the model's."""
    factor, defaults, image = folder.autoencoder.factor, folder.defaults, request.given.image
    if image is not None and kind.beside == "low resolution":
        width, height = (side * factor for side in image.picture.size)
    elif image is not None and request.given.mask is not None:
        width, height = image.picture.size
    elif image is not None and kind.sees == "nothing":
        width, height = size_for(image, factor)
    else:
        trained = _trained(folder)
        width, height = defaults.width or trained, defaults.height or trained
    return request.width or width, request.height or height


def _strength(request: Request, kind: Kind) -> float | None:
    if request.given.image is not None and kind.strength is not None:
        usual = kind.strength
        if request.given.mask is not None:
            usual = 1.0 if request.mask_fill == "original" else min(usual, _FILLED_STRENGTH)
        return _first(request.strength, usual)
    if request.strength is not None:
        what = "an image" if kind.strength is not None else "a model that begins from a picture"
        raise SafelightError(f"strength needs {what}; leave it out.")
    return None


def _mask_blur(request: Request, width: int, height: int) -> int | None:
    if request.given.mask is not None:
        return _first(request.mask_blur, min(width, height) // _BLURRED)
    if request.mask_blur is not None:
        raise SafelightError("mask_blur needs a mask; leave it out.")
    return None


def _mask_fill(request: Request) -> MaskFill:
    if request.mask_fill != "original" and request.given.mask is None:
        raise SafelightError("mask_fill needs a mask; leave it out.")
    return request.mask_fill


def _tiled_decode(request: Request, folder: Folder, width: int, height: int) -> bool:
    if request.tiled_decode is not None:
        return request.tiled_decode
    scale = 1.0 if request.hires is None else request.hires.scale
    return needs_tiles(folder.autoencoder, int(width * scale), int(height * scale))


def _windows(request: Request, folder: Folder) -> Windows | None:
    """By default as large as the pictures that the U-Net was trained on, half over each other."""
    if not request.tiled_diffusion:
        return None
    factor = folder.autoencoder.factor
    size = _first(request.tile_size, _trained(folder))
    overlap = _first(request.tile_overlap, size // factor // 2 * factor)
    check_multiple("tile_size", size, factor)
    check_multiple("tile_overlap", overlap, factor)
    if overlap >= size:
        raise SafelightError(f"tile_overlap should be less than tile_size, {size}; got {overlap}.")
    return Windows(size, overlap, request.tile_fade)


def _trained(folder: Folder) -> int:
    """The width and height, in pixels, of the pictures that the U-Net was trained on."""
    return (folder.unet.config.sample_size or 64) * folder.autoencoder.factor


def _check_strength(steps: int, strength: float | None) -> None:
    if strength is not None and int(steps * strength) < 1:
        raise SafelightError(
            f"A strength of {strength} leaves none of {steps} steps; take more of either."
        )


def _image_scale(request: Request, kind: Kind) -> float | None:
    if kind.beside == "image":
        return _first(request.image_scale, _IMAGE_SCALE)
    if request.image_scale is not None:
        raise SafelightError(
            "image_scale is for models that edit a picture by instruction; leave it out."
        )
    return None


def _noise_level(request: Request, folder: Folder, kind: Kind) -> int | None:
    noising = None if folder.vision is None else folder.vision.noising
    if noising is not None:
        level = _first(request.noise_level, _VECTOR_LEVEL)
        most = noising.scheduler.num_train_timesteps
    elif kind.beside == "low resolution":
        level = _first(request.noise_level, _NOISE_LEVEL)
        most = min(folder.unet.config.class_dim or 1, folder.low_resolution.num_train_timesteps)
    elif request.noise_level is not None:
        raise SafelightError("noise_level is for upscalers and unCLIP; leave it out.")
    else:
        return None
    if not 0 <= level < most:
        raise SafelightError(f"noise_level should lie between 0 and {most - 1}, got {level}.")
    return level


def _syntax(request: Request, folder: Folder, kind: Kind) -> PromptSyntax:
    """How prompts are read; names of classes are plain."""
    if any(isinstance(tokenizer, ClassReader) for tokenizer in folder.tokenizers):
        return "plain"
    several = request.prompt_syntax == "a1111" and len(parse(request.prompt)) > 1
    if several and kind.beside == "image":
        raise SafelightError(
            "AND does not go with a model that edits a picture by instruction; ask for one thing, "
            "or for a plain prompt."
        )
    if several and request.guidance.perp_neg is not None:
        raise SafelightError("AND does not go with perp_neg; leave one of them out.")
    return request.prompt_syntax


def _toward(request: Request, folder: Folder) -> Toward | None:
    """The second prompt; between two sets of prompts that AND joins, or two classes, is no way."""
    if request.toward is None:
        return None
    if any(isinstance(tokenizer, ClassReader) for tokenizer in folder.tokenizers):
        raise SafelightError("There is no way from one class to another; leave the second out.")
    prompts = (request.prompt, request.toward.prompt)
    if request.prompt_syntax == "a1111" and any(len(parse(prompt)) > 1 for prompt in prompts):
        raise SafelightError("AND does not go with a second prompt; leave one of them out.")
    return request.toward


def _quality(request: Request) -> Quality:
    if request.quality != "exact" and request.image_prompts:
        raise SafelightError(
            f"quality {request.quality} does not go with image prompts; leave one of them out."
        )
    return request.quality


def _token_merging(request: Request, folder: Folder) -> float:
    if not request.token_merging:
        return 0.0
    if request.image_prompts:
        raise SafelightError("token_merging does not go with image prompts; leave one of them out.")
    if not finest_transformers(folder.unet):
        raise SafelightError("This model's U-Net has no transformers; leave token_merging out.")
    return request.token_merging


def _guidance(request: Request, *, by_model: bool) -> Guidance:
    guidance = request.guidance
    if not by_model or guidance.guide_scale is not None:
        return guidance
    return replace(guidance, guide_scale=GUIDE_SCALE)


def clip_skip_for(request: Request, folder: Folder) -> int:
    """The layer of the text towers that is read, counted from the one that the model was trained
    with, which is 1.
    """
    skip = _first(request.clip_skip, 1)
    if skip == 1:
        return skip
    towers = [tower.config for tower in folder.text_towers if isinstance(tower, ClipText)]
    most = min((config.num_hidden_layers - config.skip for config in towers), default=1)
    if len(towers) < len(folder.text_towers) or not 1 <= skip <= most:
        raise SafelightError(f"clip_skip should lie between 1 and {most} here, got {skip}.")
    return skip


def _first(*values: T | None) -> T:
    """The first of the values that is not None; the last must not be."""
    return next(value for value in values if value is not None)
