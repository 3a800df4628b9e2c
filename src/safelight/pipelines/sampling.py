"""From prompts, pictures and seeds to finished latents: one batch through one model, or two."""

import copy
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.folder import Folder
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.conditioners.text import TextConditioner
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import by_step, guided
from safelight.diffusion.inpainting import keeping
from safelight.diffusion.noise_schedule import DiscreteSchedule
from safelight.diffusion.projection import Momentum
from safelight.diffusion.sigmas import split_at
from safelight.diffusion.windows import windowed
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder
from safelight.models.deep_reuse import Deep
from safelight.models.merged_tokens import with_merged_tokens
from safelight.models.unet import UNet
from safelight.nn.identity_attention import with_identity_attention
from safelight.pipelines.beginning import (
    NOT_LED,
    Batch,
    Latents,
    Model,
    Start,
    begin,
    first_noise,
    seeded,
)
from safelight.pipelines.controlling import hints_of, steered
from safelight.pipelines.enlarging import enlarged
from safelight.pipelines.guiding import Denoisers, guided_denoise, unguided
from safelight.pipelines.kind import Kind
from safelight.pipelines.quality import approximated
from safelight.pipelines.request import Hires, Settings, first_step
from safelight.pipelines.saying import on_the_way, sayings
from safelight.pipelines.settling_guidance import check_layers
from safelight.pipelines.telling import conditions_of
from safelight.rng import Counted, after
from safelight.types import ConditionalDenoise, Denoise, Network, OnStep


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
    with model.coding():
        first = begin(model, batch, scheduler, start)
    return _run(model, batch, scheduler, slice(start, None), first, on_step)


def _sample_twice(model: Model, batch: Batch, hires: Hires, on_step: OnStep | None) -> Latents:
    """The finished latents enlarged, noised anew and finished again at the larger size."""
    first = replace(batch.settings, hires=None)
    z = sample_latents(model, replace(batch, settings=first), on_step)
    with model.coding():
        z = enlarged(model.folder.autoencoder, z, hires, tiled=first.tiled_decode)
    height, width = (side * model.folder.autoencoder.factor for side in z.shape[-2:])
    steps = hires.steps or first.steps
    second = replace(first, steps=steps, strength=hires.strength, width=width, height=height)
    batch, scheduler = replace(batch, settings=second), model.scheduler(second)
    start = first_step(steps, hires.strength)
    noise = seeded(batch, model.device)
    x = z + scheduler.beginning(steps, start) * first_noise(batch, noise(tuple(z.shape), 0))
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
    with base.coding():
        first = begin(base, batch, ours, 0)
    noise = Counted(first.noise)
    x = _run(base, batch, ours, slice(0, end), replace(first, noise=noise), on_step)
    second = Start(x, after(first.noise, noise.taken))  # with fresh draws
    start = theirs.place_of(start)
    batch = replace(batch, led=NOT_LED)  # which is all of the base
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
    with model.telling():
        denoise = _guided(model, batch, scheduler, levels, start.concat)
    if start.kept is not None:
        denoise = keeping(denoise, start.kept)
    solve = scheduler.solver(steps, span)
    with model.denoising():
        x = solve(denoise, start.x, levels, noise=start.noise, on_step=on_step)
    if span.stop is not None:
        return x
    x = x * scheduler.final_scale(sigmas)
    return x if start.kept is None else start.kept.beside(x)


def _guided(
    model: Model,
    batch: Batch,
    scheduler: SchedulerConfig,
    levels: Float[Tensor, " n"],
    concat: Tensor | None,
) -> Denoise:
    """The denoiser under what the prompts say in each step, guided as the settings say; `levels`
    are those at which the sampler stops.
    """
    settings, guide, sigmas = batch.settings, model.guide, scheduler.sigmas(batch.settings.steps)
    said = sayings(batch.prompts, batch.negative, settings.steps, settings.prompt_syntax)
    if settings.toward is not None:
        ends = [settings.toward.prompt] * len(batch.prompts)
        other = sayings(ends, batch.negative, settings.steps, settings.prompt_syntax)
        said = on_the_way(said, other, settings.toward.part)
    different = list(dict.fromkeys(said))

    def controlled(network: Network) -> Network:
        return steered(network, batch.led.controls, scheduler, levels)

    def seeing(unet: UNet, network: Deep | None = None) -> Network:
        prompts = batch.led.image_prompts
        if prompts is None:
            whole = network or with_merged_tokens(unet, settings.token_merging)
            return controlled(approximated(whole, settings.quality))
        return controlled(prompts.network(unet))

    told = conditions_of(model, batch, different, concat)
    unet, watch = model.folder.unet, model.watch
    if watch is None:
        network = seeing(unet, model.network)
    else:
        watch.begin(model.text, different, told, settings.prompt_syntax)
        network = controlled(watch.over(unet))
    own = Denoisers(
        _denoiser(model, network, settings),
        scheduler.parameterization(),
        _perturbed(model, settings, seeing),
    )
    denoises = [own] * len(different)
    if guide is not None:  # which reads the prompts by its own text towers
        led = replace(batch.led, image_prompts=None)  # which speak to the model's own layers
        weaker = _denoiser(guide, guide.folder.unet, settings)
        denoises = [
            replace(own, guide=guided(unguided(weaker, conditions)))
            for conditions in conditions_of(guide, replace(batch, led=led), different, concat)
        ]
    memory = Momentum()  # one for the run, whatever the prompts say in its steps
    if batch.led.controls:
        hints = hints_of(model, batch)
        told = [hints.with_prompts(conditions) for conditions in told]
    led = {
        saying: guided_denoise(denoisers, conditions, settings, model.kind, sigmas, memory)
        for saying, denoisers, conditions in zip(different, denoises, told, strict=True)
    }
    if len(different) == 1:
        return led[different[0]]
    return by_step([led[saying] for saying in said], sigmas)


def _denoiser(model: Model, unet: Network, settings: Settings) -> ConditionalDenoise:
    """A network as a model has it, in windows where these are asked for."""
    scheduler = model.scheduler(settings)
    half = None if model.dtype == torch.float32 else model.dtype
    denoiser = Denoiser(unet, scheduler.parameterization(), scheduler.schedule(), half)
    if settings.windows is None:
        return denoiser
    factor, windows = model.folder.autoencoder.factor, settings.windows
    size, overlap = windows.size // factor, windows.overlap // factor
    return windowed(denoiser, size, overlap, fade=windows.fade)


def _perturbed(
    model: Model, settings: Settings, seeing: Callable[[UNet], Network]
) -> ConditionalDenoise | None:
    """The model with the identity for the attention maps of chosen layers, where that guides; its
    controls are as they are.
    """
    unet, guidance = model.folder.unet, settings.guidance
    if not guidance.pag_scale:
        return None
    check_layers(unet, guidance)
    worse = with_identity_attention(unet, guidance.pag_layers)
    return _denoiser(model, seeing(worse), settings)


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
