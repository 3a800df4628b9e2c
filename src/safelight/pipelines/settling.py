"""What a user leaves open, filled by the model and by the pictures that are given."""

from typing import TypeVar

from safelight.checkpoints.folder import Folder
from safelight.diffusion.samplers import sampler_name
from safelight.errors import SafelightError
from safelight.pipelines.given import size_for
from safelight.pipelines.kind import Kind
from safelight.pipelines.request import Request, Settings, check_multiple
from safelight.pipelines.settling_guidance import check_guidance

T = TypeVar("T")

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
    kind.check(request.given, name)
    if refined and request.given.parts:
        raise SafelightError(
            "A refiner goes with pictures from a prompt alone; leave the image out."
        )
    defaults, factor = folder.defaults, folder.autoencoder.factor
    width, height = _size(request, folder, kind)
    settings = Settings(
        steps=_first(request.steps, defaults.steps, kind.steps),
        scale=_first(_highest(request), request.scale, defaults.scale, kind.scale),
        sampler=sampler_name(request.sampler or defaults.sampler or folder.scheduler.sampler),
        width=width,
        height=height,
        strength=_strength(request, kind),
        image_scale=_image_scale(request, kind),
        noise_level=_noise_level(request, folder, kind),
        guidance=request.guidance,
    )
    check_guidance(request, settings, folder, kind, by_model=by_model)
    check_multiple("width", settings.width, factor)
    check_multiple("height", settings.height, factor)
    if settings.strength is not None and int(settings.steps * settings.strength) < 1:
        raise SafelightError(
            f"A strength of {settings.strength} leaves none of {settings.steps} steps; take more "
            "of either."
        )
    folder.scheduler.with_sampler(settings.sampler).sigmas(settings.steps)
    return settings


def _highest(request: Request) -> float | None:
    scales = request.guidance.scales
    return None if scales is None else max(scales.values)


def _size(request: Request, folder: Folder, kind: Kind) -> tuple[int, int]:
    """Width and height: asked for, else the given picture's, else the model's."""
    factor, defaults, image = folder.autoencoder.factor, folder.defaults, request.given.image
    if image is not None and kind.beside == "low resolution":
        width, height = (side * factor for side in image.picture.size)
    elif image is not None and kind.sees == "nothing":
        width, height = size_for(image, factor)
    else:
        trained = (folder.unet.config.sample_size or 64) * factor
        width, height = defaults.width or trained, defaults.height or trained
    return request.width or width, request.height or height


def _strength(request: Request, kind: Kind) -> float | None:
    if request.given.image is not None and kind.strength is not None:
        return kind.strength if request.strength is None else request.strength
    if request.strength is not None:
        what = "an image" if kind.strength is not None else "a model that begins from a picture"
        raise SafelightError(f"strength needs {what}; leave it out.")
    return None


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


def _first(*values: T | None) -> T:
    """The first of the values that is not None; the last must not be."""
    return next(value for value in values if value is not None)
