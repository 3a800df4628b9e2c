"""Runs recipes of video models: caches latents of clips, trains, writes a model."""

from dataclasses import replace
from statistics import median, median_low

import torch
from rich.console import Console
from rich.progress import Progress

from safelight.app.latent_training import encoder_of, latents_of, scale_of
from safelight.app.recipe import VideoRecipe
from safelight.app.running import MODEL, check_sizes, choose_device, describe, say, train_by
from safelight.app.training_basis import check_basis, video_basis
from safelight.app.video_parts import start_video
from safelight.app.video_preview import Filmed, video_preview
from safelight.checkpoints.files import sha256_of_state
from safelight.checkpoints.folder import Defaults, write_folder
from safelight.data.clip_encoding import cache_clips
from safelight.data.clip_latents import ClipBatches, ClipCache
from safelight.data.clips import ClipFolder, gather_clips
from safelight.data.config import DataConfig
from safelight.data.folders import gather
from safelight.data.latents import LatentBatches
from safelight.data.motion import bucket_of
from safelight.diffusion.denoiser import Denoiser
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.train.latent_task import latent_objective
from safelight.train.loop import Outcome
from safelight.train.optim import autocast_dtype, prepare
from safelight.train.video_task import Told, VideoTask


def train_video(recipe: VideoRecipe, *, resume: bool) -> Outcome:
    """Trains by a recipe of kind "video"; errors as `training.run_recipe`."""
    device = choose_device(recipe.device)
    clips = gather_clips(recipe.data, recipe.clips)
    say(f"Data: {clips.summary()}.")
    still_data = _stills_data(recipe)
    stills = None if still_data is None else gather(still_data)
    if stills is not None:
        say(f"Stills: {stills.summary()}.")
    start = start_video(recipe)
    model, unet, text = start.model, start.unet, start.text
    autoencoder, tower = model.autoencoder, text.towers[0]
    check_sizes(recipe.data, autoencoder.factor)
    shift, scale = scale_of(autoencoder)
    basis = video_basis(model, trained=recipe.video.layers, shift=shift, scale=scale)
    check_basis(recipe.output, basis, resume=resume)
    for frozen in (autoencoder, tower):
        prepare(frozen, recipe.optim, device)
        frozen.requires_grad_(False).eval()
    fresh, alone = start.learning(recipe.video)
    learned = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    say(f"U-Net over clips: {describe(unet)}, of which {learned / 1e6:.2f} M learn.")

    cache = _latents_of_clips(recipe, clips, autoencoder, device)
    between = None
    if stills is not None and still_data is not None and recipe.stills is not None:
        folder = recipe.latents or recipe.output / "latents"
        still_cache = latents_of(autoencoder, stills, still_data, folder, device)
        size = recipe.stills.batch_size or recipe.loop.batch_size
        between = LatentBatches(still_cache, size, shift, scale)
    share = 0.0 if recipe.stills is None else recipe.stills.share
    batches = ClipBatches(cache, recipe.loop.batch_size, shift, scale, between, share)

    dtype = autocast_dtype(recipe.optim.precision, device)
    scheduler = model.scheduler
    denoiser = Denoiser(unet, scheduler.parameterization(), scheduler.schedule(), dtype)
    told = Told(unet.temporal, unet.config, shift, scale)
    objective = latent_objective(recipe.objective, denoiser)
    task = VideoTask({"unet": unet}, denoiser, text, objective, recipe.video, told, fresh, alone)
    filmed = Filmed(denoiser, scheduler, text, told, autoencoder)
    preview = video_preview(filmed, recipe.preview, cache)
    whole = replace(model, defaults=_defaults(recipe, model.defaults, cache))

    def export(step: int) -> None:
        write_folder(recipe.output / MODEL, whole)

    return train_by(
        recipe,
        task,
        batches.batch,
        preview,
        export,
        device=device,
        resume=resume,
        basis=basis,
    )


def _stills_data(recipe: VideoRecipe) -> DataConfig | None:
    """How stills are cut: as the clips, from folders of their own."""
    if recipe.stills is None:
        return None
    return replace(recipe.data, folders=recipe.stills.folders)


def _latents_of_clips(
    recipe: VideoRecipe, clips: ClipFolder, autoencoder: AnyAutoencoder, device: torch.device
) -> ClipCache:
    """The latents of all clips, encoded as far as they are not there yet; says how many cannot be
    decoded.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("encoding clips")
        cache = cache_clips(
            recipe.latents or recipe.output / "latents",
            clips,
            recipe.data,
            recipe.clips,
            encoder_of(autoencoder, device),
            sha256_of_state(autoencoder.state_dict()),
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    lost = cache.clips.skipped[len(clips.skipped) :]
    if lost:
        say(f"{len(lost):,} clips cannot be decoded: {lost[0].path}: {lost[0].reason}, ...")
    return cache


def _defaults(recipe: VideoRecipe, former: Defaults, cache: ClipCache) -> Defaults:
    """What the recipe says, else what the base said; the size is that of the training, frames a
    second and motion those in the middle of its clips.
    """
    said, size = recipe.defaults, recipe.data.size
    rates: list[int] = []
    buckets: list[int] = []
    for group in cache.groups:
        for item in dict.fromkeys(group.items):
            clip, encoded = cache.clips.items[item], cache.encoded(item, group.bucket, False, 0)
            rates += [max(1, round(clip.fps / stride)) for stride in cache.strides(clip)]
            buckets.append(bucket_of(float(encoded.motion.mean()) * clip.fps))
    return Defaults(
        sampler=said.sampler or former.sampler,
        steps=said.steps or former.steps,
        scale=former.scale if said.scale is None else said.scale,
        width=said.width or size,
        height=said.height or size,
        fps=_first_said(said.fps, former.fps, float(median_low(rates))),
        motion=_first_said(said.motion, former.motion, float(median(buckets))),
    )


def _first_said(*values: float | None) -> float | None:
    """The first that is said, be it 0."""
    return next((value for value in values if value is not None), None)
