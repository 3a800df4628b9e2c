"""From prompts, pictures and seeds to finished latents: one batch through one model, or two."""

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.folder import Folder
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.checkpoints.vision import Vision
from safelight.conditioners.image import noised, prepared
from safelight.conditioners.numbers import with_class, with_guidance, with_numbers, with_vector
from safelight.conditioners.text import TextConditioner
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import alone, guided
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.diffusion.sigmas import split_at
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import weight_dtype
from safelight.models.autoencoder import Autoencoder
from safelight.pipelines.beside import (
    depth_beside,
    encoded,
    image_tensor,
    instructed,
    masked,
    noised_small,
)
from safelight.pipelines.given import Given
from safelight.pipelines.guiding import Conditions, Denoisers, guided_denoise
from safelight.pipelines.kind import Kind
from safelight.pipelines.request import Settings
from safelight.rng import SeededNoise, after
from safelight.types import Conditioning, Denoise, Noise, OnStep

Latents = Float[Tensor, "b c h w"]

_AESTHETIC, _UNAESTHETIC = 6.0, 2.5
"""The scores that SDXL's refiner is told of the picture wanted, and of that to steer away from."""


@dataclass(frozen=True)
class Model:
    """The parts of a model that sampling needs."""

    folder: Folder
    kind: Kind
    text: TextConditioner
    dtype: torch.dtype
    device: str
    guide: "Model | None" = None  # a weaker model that guidance leads away from

    def scheduler(self, settings: Settings) -> SchedulerConfig:
        """The noise levels, laid out for the sampler that is asked for."""
        return self.folder.scheduler.with_sampler(settings.sampler)


def upcast(folder: Folder, dtype: torch.dtype) -> Folder:
    """A model in float16 with its autoencoder in float32, where that is Stable Diffusion XL's and
    its configuration says so: its activations overflow float16, and the picture would be black.
    """
    vae = folder.autoencoder
    if dtype != torch.float16 or not folder.pipeline_class.startswith("StableDiffusionXL"):
        return folder
    if not isinstance(vae, Autoencoder) or not vae.config.force_upcast:
        return folder
    return replace(folder, autoencoder=copy.deepcopy(vae).float())


def text_conditioner(folder: Folder, kind: Kind) -> TextConditioner:
    """The text side of a model, with the pooled text where its U-Net takes numbers beside it."""
    pooled = kind.numbers != "none"
    zero_null = folder.settings.get("force_zeros_for_empty_prompt", True) is True
    return TextConditioner(
        folder.tokenizers, folder.text_towers, pooled=pooled, zero_null=pooled and zero_null
    )


@dataclass(frozen=True)
class Batch:
    """What is asked of each picture: row i has prompt i, and the noise of seed i."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    negative: str
    settings: Settings
    given: Given


def sample_latents(model: Model, batch: Batch, on_step: OnStep | None = None) -> Latents:
    """Scaled latents of a batch by one model."""
    scheduler = model.scheduler(batch.settings)
    steps, strength = batch.settings.steps, batch.settings.strength
    start = 0 if strength is None else steps - int(steps * strength)
    x, concat, noise = _begin(model, batch, scheduler, start)
    return _run(model, batch, scheduler, slice(start, None), x, concat, noise, on_step)


def sample_in_two(
    base: Model, refiner: Model, at: float, batch: Batch, on_step: OnStep | None = None
) -> Latents:
    """Scaled latents of a batch whose first steps a base does, and those below the part `at` of the
    noise schedule a refiner (Podell et al. 2023, arXiv 2307.01952, section 2.5); as diffusers'
    `denoising_end` and `denoising_start`.

    Raises `SafelightError` where one of the two would have no step.
    """
    steps = batch.settings.steps
    ours, theirs = base.scheduler(batch.settings), refiner.scheduler(batch.settings)
    end, start = (_split(scheduler, steps, at) for scheduler in (ours, theirs))
    if not 0 < end < steps or start >= steps:
        raise SafelightError(
            f"With {steps} steps and refine_at = {at} the base does {end} and the refiner "
            f"{steps - start} of them; each should do one or more."
        )
    x, concat, noise = _begin(base, batch, ours, 0)
    x = _run(base, batch, ours, slice(0, end), x, concat, noise, on_step)
    later = after(noise, end + 1)  # fresh draws for the second part
    return _run(refiner, batch, theirs, slice(start, None), x, None, later, on_step)


def _split(scheduler: SchedulerConfig, steps: int, at: float) -> int:
    schedule = scheduler.schedule()
    if not isinstance(schedule, DiscreteSchedule):
        raise SafelightError("A refiner goes with a model whose noise levels are a table of betas.")
    return split_at(schedule, scheduler.sigmas(steps), at)


def _begin(
    model: Model, batch: Batch, scheduler: SchedulerConfig, start: int
) -> tuple[Latents, Tensor | None, Noise]:
    """x at the level of step `start`, the channels beside it, and the sampler's noise.

    Draws come in diffusers' order, so that a seed gives its picture.
    """
    settings, given, kind, folder = batch.settings, batch.given, model.kind, model.folder
    autoencoder = folder.autoencoder
    height, width = (side // autoencoder.factor for side in (settings.height, settings.width))
    shape = (len(batch.seeds), folder.unet.config.out_channels, height, width)
    sigmas = scheduler.sigmas(settings.steps)

    def pure(noise: Noise, index: int) -> Latents:
        return noise(shape, index) * scheduler.initial_scale(sigmas)

    small = (3, height, width)
    upscales = kind.beside == "low resolution"
    earlier = _vector_draws(folder) + ((small,) if upscales else ())
    noise = SeededNoise(batch.seeds, model.device, earlier=earlier)
    if given.image is None or kind.sees != "nothing":
        return pure(noise, 0), None, noise
    if upscales:
        first = SeededNoise(batch.seeds, model.device)((len(batch.seeds), *small), 0)
        level = settings.noise_level or 0
        return pure(noise, 0), noised_small(folder, given.image, level, first), noise
    pixels = image_tensor(given.image.picture, settings.width, settings.height)
    pixels = pixels.to(model.device, weight_dtype(autoencoder)).expand(len(batch.seeds), -1, -1, -1)
    if kind.beside == "image":
        return pure(noise, 0), instructed(folder, pixels), noise
    if kind.beside == "mask" and start == 0:
        return pure(noise, 0), masked(folder, given, pixels, noise(shape, 1)), after(noise, 2)
    x0 = encoded(autoencoder, pixels, noise(shape, 0))
    x = x0 + sigmas[start].item() * noise(shape, 1)
    if kind.beside == "mask":
        return x, masked(folder, given, pixels, noise(shape, 2)), after(noise, 3)
    if given.depth is None:
        return x, None, after(noise, 2)
    depth = depth_beside(given.depth, height, width).to(model.device)
    return x, depth.expand(len(batch.seeds), -1, -1, -1), after(noise, 2)


def _run(
    model: Model,
    batch: Batch,
    scheduler: SchedulerConfig,
    span: slice,
    x: Latents,
    concat: Tensor | None,
    noise: Noise,
    on_step: OnStep | None,
) -> Latents:
    """The steps of `span`: x at their first level to x at their last."""
    steps = batch.settings.steps
    sigmas = scheduler.sigmas(steps)
    levels = sigmas[span.start : None if span.stop is None else span.stop + 1]
    denoise = _guided(model, batch, scheduler, concat)
    x = scheduler.solver(steps, span)(denoise, x, levels, noise=noise, on_step=on_step)
    return x * scheduler.final_scale(sigmas) if span.stop is None else x


def _guided(
    model: Model, batch: Batch, scheduler: SchedulerConfig, concat: Tensor | None
) -> Denoise:
    """The denoiser under the prompt, and under the picture where the model has a scale for it."""
    settings, guide = batch.settings, model.guide
    cond, uncond = (replace(part, concat=concat) for part in _conditioning(model, batch))
    null = None
    if settings.guidance.perp_neg is not None:
        null = replace(_conditioning(model, replace(batch, negative=""))[1], concat=concat)
    led = None
    if guide is not None:  # which reads the prompt by its own text towers
        theirs = replace(_conditioning(guide, batch)[0], concat=concat)
        denoiser = _denoiser(guide, guide.scheduler(settings))
        led = guided(alone(denoiser, _told(guide, theirs, settings)))
    return guided_denoise(
        Denoisers(_denoiser(model, scheduler), model.folder.unet, led),
        Conditions(_told(model, cond, settings), uncond, null),
        settings,
        model.kind,
        scheduler.sigmas(settings.steps),
    )


def _told(model: Model, cond: Conditioning, settings: Settings) -> Conditioning:
    """With the guidance scale, where the U-Net is told it."""
    if not model.kind.guided:
        return cond
    return with_guidance(cond, settings.scale, model.folder.unet.config)


def _denoiser(model: Model, scheduler: SchedulerConfig) -> Denoiser:
    return Denoiser(
        model.folder.unet,
        scheduler.parameterization(),
        scheduler.schedule(),
        None if model.dtype == torch.float32 else model.dtype,
    )


def _conditioning(model: Model, batch: Batch) -> tuple[Conditioning, Conditioning]:
    """What the prompts ask for, and what guidance steers away from."""
    count, unet, settings = len(batch.prompts), model.folder.unet.config, batch.settings
    if model.folder.vision is not None:
        return _seeing(model, batch, model.folder.vision)
    cond, uncond = _texts(model, batch)
    if model.kind.beside == "low resolution":
        level = settings.noise_level or 0
        return with_class(cond, level, unet), with_class(uncond, level, unet)
    if model.kind.numbers == "none":
        return cond, uncond
    size = [float(settings.height), float(settings.width)]  # as of a whole picture of this size
    aesthetics = model.kind.numbers == "aesthetics"
    wanted = [*size, 0.0, 0.0, *([_AESTHETIC] if aesthetics else size)]
    avoided = [*size, 0.0, 0.0, *([_UNAESTHETIC] if aesthetics else size)]

    def rows(numbers: list[float]) -> Float[Tensor, "b k"]:
        return torch.tensor([numbers] * count, dtype=torch.float32, device=model.device)

    return with_numbers(cond, rows(wanted), unet), with_numbers(uncond, rows(avoided), unet)


def _texts(model: Model, batch: Batch) -> tuple[Conditioning, Conditioning]:
    """The prompts, and what is to be avoided, or nothing."""
    count = len(batch.prompts)
    cond = model.text(batch.prompts)
    return cond, model.text([batch.negative] * count) if batch.negative else model.text.null(count)


def _seeing(model: Model, batch: Batch, vision: Vision) -> tuple[Conditioning, Conditioning]:
    """The same for a model that is told the vector of a picture; guidance leads away from none."""
    image, count = batch.given.image, len(batch.seeds)
    assert image is not None  # which `Kind.check` sees to
    pixels = prepared(image.picture, vision.preparation)
    vector = vision.tower(pixels.to(model.device, model.dtype)).float()
    if vision.noising is None:
        context = vector[:, None].expand(count, -1, -1)  # one token
        return Conditioning(context=context), Conditioning(context=torch.zeros_like(context))
    level = batch.settings.noise_level or 0
    sigma = vision.noising.scheduler.schedule().t_to_sigma(torch.tensor(float(level))).item()
    noise = SeededNoise(batch.seeds, model.device)(tuple(vector.expand(count, -1).shape), 0)
    rows = noised(vector.expand(count, -1), vision.noising.normalizer, sigma, level, noise).float()
    cond, uncond = _texts(model, batch)
    return with_vector(cond, rows), with_vector(uncond, torch.zeros_like(rows))


def _vector_draws(folder: Folder) -> tuple[tuple[int, ...], ...]:
    """The shapes of the noise that is drawn for the vector of a picture, before any other."""
    if folder.vision is None or folder.vision.noising is None:
        return ()
    return ((folder.vision.tower.config.projection_dim,),)


@contextmanager
def one_line_when_out_of_memory(settings: Settings) -> Generator[None]:
    """Turns a lack of memory into a `SafelightError` with the remedy."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise SafelightError(
                f"Not enough memory for {settings.width} x {settings.height} pixels; ask for a "
                "smaller picture, or for --precision bfloat16."
            ) from error
        raise
