"""Runs recipes of latent diffusion: caches latents, trains U-Net and text tower, writes a model."""

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from safelight.app.conditions_training import (
    asked_in_previews,
    new_weights,
    told_beside,
    with_conditions,
)
from safelight.app.latent_parts import conditioner, start_model
from safelight.app.recipe import LatentRecipe
from safelight.app.running import (
    MODEL,
    check_sizes,
    choose_device,
    describe,
    say,
    train_by,
)
from safelight.app.training_basis import check_basis, latent_basis
from safelight.app.training_previews import sample_preview
from safelight.checkpoints.files import sha256_of_state
from safelight.checkpoints.folder import write_folder
from safelight.data.config import DataConfig
from safelight.data.encoding import Encode, cache_latents
from safelight.data.folders import PictureFolder, gather
from safelight.data.latents import LatentBatches, LatentCache, measure_scale
from safelight.diffusion.denoiser import Denoiser
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.autoencoder import Autoencoder
from safelight.models.image_adapter import Pictured
from safelight.models.vq import VQAutoencoder
from safelight.train.checkpoint import Basis
from safelight.train.latent_task import LatentTask, latent_objective
from safelight.train.loop import Outcome
from safelight.train.optim import autocast_dtype, prepare
from safelight.types import Network


def train_latent(recipe: LatentRecipe, *, resume: bool) -> Outcome:
    """Trains by a recipe of kind "latent"; errors as `training.run_recipe`."""
    device = choose_device(recipe.device)
    pictures = gather(recipe.data)
    say(f"Data: {pictures.summary()}.")
    base = start_model(recipe, pictures)
    conditioner(base)  # raises now for text towers that cannot be trained
    model = with_conditions(base, recipe, pictures)
    fresh = new_weights(base, model)
    del base
    told_beside(model, recipe, pictures)  # raises now for what a picture lacks
    text = conditioner(model)
    unet, tower, autoencoder = model.unet, text.towers[0], model.autoencoder
    check_sizes(recipe.data, autoencoder.factor)
    basis = latent_basis(model, text_trained=recipe.text.trained)
    if recipe.base is not None:
        basis["scale"] = scale_of(autoencoder)
    former = check_basis(recipe.output, basis, resume=resume)
    autoencoder.to(device).requires_grad_(False)
    tower.to(device)
    say(f"U-Net: {describe(unet)}; text tower: {describe(tower)}.")

    cache = latents_of(
        autoencoder, pictures, recipe.data, recipe.latents or recipe.output / "latents", device
    )
    if recipe.base is None:
        set_scale(autoencoder, *(_scale_in(former) or measure_scale(cache.sample())))
        say(f"Latents scaled by {autoencoder.config.scaling_factor:.4f} to unit variance.")
    basis["scale"] = scale_of(autoencoder)
    told = told_beside(model, recipe, cache.pictures)
    batches = LatentBatches(
        cache, recipe.loop.batch_size, *scale_of(autoencoder), beside=told.sources
    )

    dtype = autocast_dtype(recipe.optim.precision, device)
    scheduler = model.scheduler
    modules: dict[str, nn.Module] = {"unet": unet}
    network: Network = unet
    if model.beside.layout is not None:
        modules["layout"] = model.beside.layout.to(device)
    if model.beside.adapter is not None:
        modules["image"] = model.beside.adapter.to(device)
        network = Pictured(unet, model.beside.adapter, (1.0,))
        prepare(network.unet, recipe.optim, device)  # whose weights are the U-Net's
    denoiser = Denoiser(network, scheduler.parameterization(), scheduler.schedule(), dtype)
    if recipe.text.trained:
        modules["text"] = tower
    else:
        tower.requires_grad_(False)
    objective = latent_objective(recipe.objective, denoiser)
    task = LatentTask(modules, denoiser, text, objective, told.conditions, fresh)
    asked = asked_in_previews(recipe, told, cache, device)
    preview = sample_preview(denoiser, scheduler, text, autoencoder, recipe.preview, asked)

    def export(step: int) -> None:
        write_folder(recipe.output / MODEL, model)

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


def latents_of(
    autoencoder: AnyAutoencoder,
    pictures: PictureFolder,
    config: DataConfig,
    folder: Path,
    device: torch.device,
) -> LatentCache:
    """The latents of all pictures, encoded as far as they are not in `folder` yet.

    Says how many cannot be decoded.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("encoding pictures")
        cache = cache_latents(
            folder,
            pictures,
            config,
            encoder_of(autoencoder, device),
            sha256_of_state(autoencoder.state_dict()),
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    lost = cache.pictures.skipped[len(pictures.skipped) :]
    if lost:
        say(f"{len(lost):,} pictures cannot be decoded: {lost[0].path}: {lost[0].reason}, ...")
    return cache


def encoder_of(autoencoder: AnyAutoencoder, device: torch.device) -> Encode:
    """An autoencoder's encoder, as caches of latents take it."""
    autoencoder.eval()

    @torch.no_grad()
    def encode(pixels: Tensor) -> tuple[Tensor, Tensor]:
        encoded = autoencoder.encode(pixels.to(device))
        if isinstance(encoded, Tensor):  # a VQ autoencoder's latents have no spread
            return encoded, torch.zeros_like(encoded)
        return encoded.mean, (0.5 * encoded.logvar).exp()

    return encode


def _scale_in(basis: Basis) -> tuple[float, float] | None:
    """The shift and scale that a training began with, which stay though pictures come or go."""
    match basis.get("scale"):
        case [float(shift), float(scale)]:
            return shift, scale
        case _:
            return None


def set_scale(autoencoder: AnyAutoencoder, shift: float, scale: float) -> None:
    """Writes the measured scale of its latents into an autoencoder's configuration."""
    if isinstance(autoencoder, Autoencoder):
        autoencoder.config = replace(autoencoder.config, shift_factor=shift, scaling_factor=scale)
    elif isinstance(autoencoder, VQAutoencoder):
        autoencoder.config = replace(autoencoder.config, scaling_factor=scale)
    else:
        autoencoder.config = replace(autoencoder.config, scaling_factor=scale)


def scale_of(autoencoder: AnyAutoencoder) -> tuple[float, float]:
    """The shift and scale of an autoencoder's latents."""
    config = autoencoder.config
    shift = autoencoder.config.shift_factor if isinstance(autoencoder, Autoencoder) else 0.0
    return shift, config.scaling_factor
