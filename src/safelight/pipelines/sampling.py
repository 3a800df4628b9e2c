"""From prompts, pictures and seeds to finished latents: one batch through one model, or two."""

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace

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
from safelight.diffusion.guidance import by_step, cfg, cfg_composed, cfg_image
from safelight.diffusion.inpainting import keeping
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.diffusion.sigmas import split_at
from safelight.diffusion.windows import windowed
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder
from safelight.pipelines.beginning import Batch, Latents, Model, Start, begin, first_noise, seeded
from safelight.pipelines.enlarging import enlarged
from safelight.pipelines.kind import Kind
from safelight.pipelines.request import Hires, Settings, first_step
from safelight.pipelines.saying import Texts, encoded_texts, sayings
from safelight.rng import after
from safelight.types import ConditionalDenoise, Conditioning, Denoise, OnStep

_AESTHETIC, _UNAESTHETIC = 6.0, 2.5
"""The scores that SDXL's refiner is told of the picture wanted, and of that to steer away from."""


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


def sample_latents(model: Model, batch: Batch, on_step: OnStep | None = None) -> Latents:
    """Scaled latents of a batch by one model."""
    if batch.settings.hires is not None:
        return _sample_twice(model, batch, batch.settings.hires, on_step)
    scheduler = model.scheduler(batch.settings)
    start = first_step(batch.settings.steps, batch.settings.strength)
    first = begin(model, batch, scheduler, start)
    return _run(model, batch, scheduler, slice(start, None), first, on_step)


def _sample_twice(model: Model, batch: Batch, hires: Hires, on_step: OnStep | None) -> Latents:
    """The finished latents enlarged, noised anew and finished again at the larger size."""
    first = replace(batch.settings, hires=None)
    z = sample_latents(model, replace(batch, settings=first), on_step)
    z = enlarged(model.folder.autoencoder, z, hires, tiled=first.tiled_decode)
    height, width = (side * model.folder.autoencoder.factor for side in z.shape[-2:])
    steps = hires.steps or first.steps
    second = replace(first, steps=steps, strength=hires.strength, width=width, height=height)
    batch, scheduler = replace(batch, settings=second), model.scheduler(second)
    start = first_step(steps, hires.strength)
    noise = seeded(batch, model.device)
    x = z + scheduler.sigmas(steps)[start].item() * first_noise(batch, noise(tuple(z.shape), 0))
    return _run(model, batch, scheduler, slice(start, None), Start(x, after(noise, 1)), on_step)


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
    first = begin(base, batch, ours, 0)
    x = _run(base, batch, ours, slice(0, end), first, on_step)
    second = Start(x, after(first.noise, end + 1))  # with fresh draws
    return _run(refiner, batch, theirs, slice(start, None), second, on_step)


def _split(scheduler: SchedulerConfig, steps: int, at: float) -> int:
    schedule = scheduler.schedule()
    if not isinstance(schedule, DiscreteSchedule):
        raise SafelightError("A refiner goes with a model whose noise levels are a table of betas.")
    return split_at(schedule, scheduler.sigmas(steps), at)


def _run(
    model: Model,
    batch: Batch,
    scheduler: SchedulerConfig,
    span: slice,
    start: Start,
    on_step: OnStep | None,
) -> Latents:
    """The steps of `span`, from `start` to x at the last level."""
    steps = batch.settings.steps
    sigmas = scheduler.sigmas(steps)
    levels = sigmas[span.start : None if span.stop is None else span.stop + 1]
    denoise = _guided(model, batch, scheduler, start.concat)
    if start.kept is not None:
        denoise = keeping(denoise, start.kept)
    solve = scheduler.solver(steps, span)
    x = solve(denoise, start.x, levels, noise=start.noise, on_step=on_step)
    return x * scheduler.final_scale(sigmas) if span.stop is None else x


def _guided(
    model: Model, batch: Batch, scheduler: SchedulerConfig, concat: Tensor | None
) -> Denoise:
    """The denoiser under what the prompts say in each step."""
    settings = batch.settings
    denoiser: ConditionalDenoise = Denoiser(
        model.folder.unet,
        scheduler.parameterization(),
        scheduler.schedule(),
        None if model.dtype == torch.float32 else model.dtype,
    )
    if settings.windows is not None:
        factor, windows = model.folder.autoencoder.factor, settings.windows
        size, overlap = windows.size // factor, windows.overlap // factor
        denoiser = windowed(denoiser, size, overlap, fade=windows.fade)
    said = sayings(batch.prompts, batch.negative, settings.steps, settings.prompt_syntax)
    different = list(dict.fromkeys(said))
    text = replace(model.text, skip=settings.clip_skip - 1)
    texts = encoded_texts(text, different, settings.prompt_syntax)
    steered = {
        saying: _steered(model, batch, denoiser, concat, parts, saying.weights)
        for saying, parts in zip(different, texts, strict=True)
    }
    if len(different) == 1:
        return steered[different[0]]
    return by_step([steered[saying] for saying in said], scheduler.sigmas(settings.steps))


def _steered(
    model: Model,
    batch: Batch,
    denoiser: ConditionalDenoise,
    concat: Tensor | None,
    texts: Sequence[Texts],
    weights: Sequence[Sequence[float]],
) -> Denoise:
    """The denoiser under one prompt or several, and under the picture where the model has a scale
    for it.
    """
    settings, kind = batch.settings, model.kind
    pairs = [
        [replace(side, concat=concat) for side in _conditioning(model, batch, pair)]
        for pair in texts
    ]
    cond, uncond = pairs[0]
    if len(pairs) > 1:
        return _composed(model, settings, denoiser, pairs, weights)
    if kind.guided:
        told = with_guidance(cond, settings.scale, model.folder.unet.config)
        return cfg(denoiser, told, told, 1.0)
    if settings.scale <= 1:
        return cfg(denoiser, cond, cond, 1.0)
    if kind.beside != "image" or concat is None:
        return cfg(denoiser, cond, uncond, settings.scale)
    by_image = 1.0 if settings.image_scale is None else settings.image_scale
    if by_image < 1:
        return cfg(denoiser, cond, cond, 1.0)
    neither = replace(uncond, concat=torch.zeros_like(concat))
    return cfg_image(denoiser, cond, uncond, neither, settings.scale, by_image)


def _composed(
    model: Model,
    settings: Settings,
    denoiser: ConditionalDenoise,
    pairs: Sequence[Sequence[Conditioning]],
    weights: Sequence[Sequence[float]],
) -> Denoise:
    """The denoiser under several prompts, by classifier-free guidance even at a scale of 1."""
    unet, scale = model.folder.unet.config, max(settings.scale, 1.0)
    conds, uncond = [cond for cond, _ in pairs], pairs[0][1]
    if model.kind.guided:
        *conds, uncond = (with_guidance(side, settings.scale, unet) for side in (*conds, uncond))
        scale = 1.0
    return cfg_composed(denoiser, conds, torch.tensor(weights), uncond, scale)


def _conditioning(model: Model, batch: Batch, texts: Texts) -> Texts:
    """What the prompts ask for, and what guidance steers away from."""
    count, unet, settings = len(batch.prompts), model.folder.unet.config, batch.settings
    if model.folder.vision is not None:
        return _seeing(model, batch, model.folder.vision, texts)
    cond, uncond = texts
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


def _seeing(model: Model, batch: Batch, vision: Vision, texts: Texts) -> Texts:
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
    noise = seeded(batch, model.device)(tuple(vector.expand(count, -1).shape), 0)
    rows = noised(vector.expand(count, -1), vision.noising.normalizer, sigma, level, noise).float()
    cond, uncond = texts
    return with_vector(cond, rows), with_vector(uncond, torch.zeros_like(rows))


@contextmanager
def one_line_when_out_of_memory(settings: Settings) -> Generator[None]:
    """Turns a lack of memory into a `SafelightError` with the remedy."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise SafelightError(
                f"Not enough memory for {settings.width} x {settings.height} pixels; ask for a "
                "smaller picture, for --precision bfloat16, or for --tiled-decode."
            ) from error
        raise
