"""Runs recipes of tiny autoencoders: stand-ins for that of a model, for previews and streams."""

from collections.abc import Callable
from dataclasses import asdict

import torch
from einops import rearrange
from torch import Tensor

from safelight.app.autoencoder_training import (
    perceptual_features,
    pictures_shown,
    tell_skipped,
)
from safelight.app.recipe import TinyRecipe
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
from safelight.app.training_basis import check_basis, tiny_basis
from safelight.app.training_previews import psnr, reconstruct, some_pixels
from safelight.checkpoints.atomic import replacing_folder
from safelight.checkpoints.components import write_autoencoder
from safelight.data.batches import PictureBatches
from safelight.data.config import DataConfig
from safelight.data.folders import PictureFolder, gather
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import latent_channels, likeliest
from safelight.models.autoencoder import Autoencoder
from safelight.models.tiny import TinyAutoencoder, TinyConfig
from safelight.models.vq import VQAutoencoder
from safelight.train.autoencoder_task import AutoencoderTask, reconstruct_tiny
from safelight.train.loop import Outcome, Preview
from safelight.train.optim import autocast_dtype, prepare

_SHOWN, _MEASURED, _AT_ONCE = 8, 128, 16


def train_tiny(recipe: TinyRecipe, *, resume: bool) -> Outcome:
    """Trains by a recipe of kind "tiny"; errors as `training.run_recipe`."""
    device = choose_device(recipe.device)
    folder = gather(recipe.data)
    say(f"Data: {folder.summary()}.")
    teacher = _teacher(recipe)
    with seeded(recipe.loop.seed):
        tiny = _tiny(recipe, teacher)
    check_sizes(recipe.data, teacher.factor)
    basis = tiny_basis(tiny, teacher)
    check_basis(recipe.output, basis, resume=resume)
    prepare(teacher, recipe.optim, device)
    teacher.requires_grad_(False).eval()
    say(f"Tiny autoencoder: {describe(tiny)}, for one of {describe(teacher)}.")
    through = reconstruct_tiny(
        tiny, teacher, recipe.loss, autocast_dtype(recipe.optim.precision, device)
    )
    features = perceptual_features(recipe.features, recipe.loss, device)
    with seeded(recipe.loop.seed):
        task = AutoencoderTask(tiny, through, recipe.loss, features)
    shown = pictures_shown(folder, recipe.data, recipe.held_out)
    pictures = PictureBatches(folder, recipe.data, recipe.loop.batch_size)

    def export(step: int) -> None:
        with replacing_folder(recipe.output / MODEL) as model:
            write_autoencoder(model / "vae", tiny)

    outcome = train_by(
        recipe,
        task,
        pictures.batch,
        _preview(tiny, teacher, shown, recipe.data, device),
        export,
        device=device,
        resume=resume,
        basis=basis,
    )
    tell_skipped(pictures)
    return outcome


def _teacher(recipe: TinyRecipe) -> Autoencoder | VQAutoencoder:
    found = open_autoencoder(recipe.base)
    if isinstance(found, TinyAutoencoder):
        raise SafelightError(
            f"{recipe.base} has a tiny autoencoder already; a tiny one stands in for a whole one."
        )
    return found


def _tiny(recipe: TinyRecipe, teacher: Autoencoder | VQAutoencoder) -> TinyAutoencoder:
    """A new one of the recipe's shape; `SafelightError` if that is none, or has latents of another
    size.
    """
    if not recipe.model.encoder_blocks:
        raise SafelightError(
            "model.encoder_blocks names no level; a decoder alone has no folder in diffusers' "
            "layout. Give as many levels as decoder_blocks has."
        )
    own = teacher.config
    try:
        config = TinyConfig(
            in_channels=own.in_channels,
            out_channels=own.out_channels,
            latent_channels=latent_channels(teacher),
            **asdict(recipe.model),
        )
    except ValueError as error:
        raise SafelightError(f"[model]: {error}") from error
    tiny = TinyAutoencoder(config)
    if tiny.factor != teacher.factor:
        levels = teacher.factor.bit_length()
        raise SafelightError(
            f"model.decoder_blocks has {len(config.decoder_blocks)} levels, and the latents of "
            f"{recipe.base} are pictures divided by {teacher.factor}; give {levels} levels."
        )
    return tiny


def _preview(
    tiny: TinyAutoencoder,
    teacher: Autoencoder | VQAutoencoder,
    folder: PictureFolder,
    config: DataConfig,
    device: torch.device,
) -> Callable[[int], Preview]:
    """Pictures above what the whole and what the tiny decoder make of their latents, and the mean
    PSNR in dB of both, of at most 128 pictures.
    """
    pixels = some_pixels(folder, config, _MEASURED)

    whole = reconstruct(teacher, pixels, device)

    @torch.no_grad()
    def decoded() -> Tensor:
        outputs: list[Tensor] = []
        for first in range(0, len(pixels), _AT_ONCE):
            z = likeliest(teacher, pixels[first : first + _AT_ONCE].to(device))
            made = tiny.decode(tiny.unscale(teacher.scale(z)))
            outputs.append(made.float().clamp(-1, 1).cpu())
        return torch.cat(outputs)

    def preview(step: int) -> Preview:
        rows = (pixels, whole, decoded())
        shown = torch.stack([row[:_SHOWN] for row in rows])  # (3, 8, 3, h, w)
        return Preview(
            rearrange(shown, "row column c h w -> c (row h) (column w)"),
            {
                "psnr": float(psnr(rows[2], pixels).mean()),
                "whole": float(psnr(whole, pixels).mean()),
            },
        )

    return preview
