"""Runs recipes of autoencoders, KL and VQ."""

from dataclasses import replace
from pathlib import Path

import torch

from safelight.app.recipe import AutoencoderRecipe, VQRecipe
from safelight.app.running import (
    MODEL,
    check_sizes,
    choose_device,
    describe,
    open_autoencoder,
    say,
    seeded,
    train_by,
)
from safelight.app.training_basis import autoencoder_basis, check_basis
from safelight.app.training_previews import reconstruction_preview
from safelight.checkpoints.atomic import replacing_folder
from safelight.checkpoints.components import write_autoencoder
from safelight.checkpoints.features import load_features
from safelight.data.batches import PictureBatches
from safelight.data.config import DataConfig, FolderConfig
from safelight.data.folders import PictureFolder, gather
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.tiny import TinyAutoencoder
from safelight.models.vq import VQAutoencoder, VQConfig
from safelight.rng import generator_for
from safelight.train.autoencoder_task import (
    AutoencoderLossConfig,
    AutoencoderTask,
    reconstruct_kl,
    reconstruct_vq,
    start_codebook,
)
from safelight.train.loop import Outcome
from safelight.train.losses import Features
from safelight.train.optim import autocast_dtype


def train_autoencoder(recipe: AutoencoderRecipe | VQRecipe, *, resume: bool) -> Outcome:
    """Trains by a recipe of kind "autoencoder" or "vq"; errors as `training.run_recipe`."""
    device = choose_device(recipe.device)
    folder = gather(recipe.data)
    say(f"Data: {folder.summary()}.")
    autoencoder = _autoencoder(recipe)
    check_sizes(recipe.data, autoencoder.factor)
    basis = autoencoder_basis(recipe, autoencoder)
    check_basis(recipe.output, basis, resume=resume)
    say(f"Autoencoder: {describe(autoencoder)}.")
    dtype = autocast_dtype(recipe.optim.precision, device)
    loss = recipe.loss
    reconstruct = (
        reconstruct_vq(autoencoder, loss, dtype)
        if isinstance(autoencoder, VQAutoencoder)
        else reconstruct_kl(autoencoder, loss, dtype)
    )
    features = perceptual_features(recipe.features, loss, device)
    with seeded(recipe.loop.seed):
        task = AutoencoderTask(autoencoder, reconstruct, loss, features)
    shown = pictures_shown(folder, recipe.data, recipe.held_out)
    pictures = PictureBatches(folder, recipe.data, recipe.loop.batch_size)
    if isinstance(autoencoder, VQAutoencoder) and recipe.base is None:
        pixels = pictures.batch(0).pixels
        assert pixels is not None
        start_codebook(autoencoder, pixels, generator_for(recipe.loop.seed))

    def export(step: int) -> None:
        with replacing_folder(recipe.output / MODEL) as model:
            write_autoencoder(model / "vae", autoencoder)

    outcome = train_by(
        recipe,
        task,
        pictures.batch,
        reconstruction_preview(autoencoder, shown, recipe.data, device),
        export,
        device=device,
        resume=resume,
        basis=basis,
    )
    tell_skipped(pictures)
    return outcome


def perceptual_features(
    source: str | None, loss: AutoencoderLossConfig, device: torch.device
) -> Features | None:
    """What the perceptual loss looks through, if there is one; says so if there is none."""
    if source and loss.perceptual:
        return load_features(source, device)
    if loss.perceptual:
        say("No perceptual loss, because the recipe names no features to look through.")
    elif source:
        say("No perceptual loss, because its weight is 0; features are not used.")
    return None


def pictures_shown(folder: PictureFolder, data: DataConfig, held_out: Path | None) -> PictureFolder:
    """The pictures of previews: those held out, if there are any, else of the training."""
    return folder if held_out is None else gather(replace(data, folders=(FolderConfig(held_out),)))


def tell_skipped(pictures: PictureBatches) -> None:
    """Tells the user how many pictures could not be decoded, if any."""
    lost = pictures.skipped
    if lost:
        say(f"{len(lost):,} pictures could not be decoded: {lost[0].path}: {lost[0].reason}, ...")


def _autoencoder(recipe: AutoencoderRecipe | VQRecipe) -> Autoencoder | VQAutoencoder:
    """A new autoencoder, or the one to go on from."""
    if (recipe.base is None) == (recipe.model is None):
        raise SafelightError("A recipe needs either base (a folder to go on from) or [model].")
    if recipe.base is not None:
        found = open_autoencoder(recipe.base)
        if isinstance(found, TinyAutoencoder):
            raise SafelightError(
                f"{recipe.base} holds a tiny autoencoder, which is distilled from another; kind = "
                f"{recipe.kind!r} does not train it."
            )
        kind = "vq" if isinstance(found, VQAutoencoder) else "autoencoder"
        if kind != recipe.kind:
            raise SafelightError(
                f"{recipe.base} holds a {type(found).__name__}, which kind = {kind!r} trains, "
                f"not {recipe.kind!r}."
            )
        return found
    with seeded(recipe.loop.seed):
        if isinstance(recipe.model, VQConfig):
            return VQAutoencoder(recipe.model)
        return Autoencoder(recipe.model or AutoencoderConfig())
