"""The parts of a text-to-picture model in training: made new, or read from a folder; written."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from safelight.app.recipe import DiffusionConfig, LatentRecipe, TextConfig
from safelight.app.running import open_autoencoder, seeded
from safelight.checkpoints.atomic import replacing_folder
from safelight.checkpoints.components import (
    read_tokenizer,
    write_autoencoder,
    write_text_tower,
    write_unet,
)
from safelight.conditioners.text import TextConditioner
from safelight.data.folders import PictureFolder
from safelight.diffusion.noise_schedule import (
    DiscreteSchedule,
    NoiseSchedule,
    cosine_betas,
    linear_betas,
    rescale_zero_terminal_snr,
    scaled_linear_betas,
)
from safelight.diffusion.parameterization import Parameterization, by_name
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder
from safelight.models.clip import ClipText
from safelight.models.tokenizer import EOS, ClipTokenizer
from safelight.models.unet import UNet, UNetConfig
from safelight.models.vq import VQAutoencoder


@dataclass(frozen=True)
class Parts:
    """A U-Net, what its output means, its autoencoder, and its text tower with the tokenizer."""

    unet: UNet
    schedule: NoiseSchedule
    parameterization: Parameterization
    autoencoder: Autoencoder | VQAutoencoder
    text: TextConditioner


def make_parts(recipe: LatentRecipe, pictures: PictureFolder) -> Parts:
    """New networks of the recipe's shapes around its autoencoder.

    Raises `SafelightError` if the shapes do not fit each other.
    """
    assert recipe.autoencoder is not None
    autoencoder = open_autoencoder(recipe.autoencoder)
    tokenizer = _tokenizer(recipe.text, pictures)
    tower_config = replace(
        recipe.text.tower,
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=tokenizer.length,
        eos_token_id=tokenizer.id_of(EOS),
    )
    latent = (
        autoencoder.config.codebook_dim
        if isinstance(autoencoder, VQAutoencoder)
        else autoencoder.config.latent_channels
    )
    if recipe.unet is None:
        raise SafelightError("A recipe with autoencoder needs the U-Net's shape in [unet].")
    _check("unet.in_channels", recipe.unet.in_channels, "the autoencoder's latents", latent)
    _check("unet.out_channels", recipe.unet.out_channels, "the autoencoder's latents", latent)
    _check(
        "unet.cross_attention_dim",
        recipe.unet.cross_attention_dim,
        "text.tower.hidden_size",
        tower_config.hidden_size,
    )
    config = replace(recipe.unet, sample_size=recipe.data.size // autoencoder.factor)
    with seeded(recipe.loop.seed):
        unet, tower = _build(config), ClipText(tower_config)
    return Parts(
        unet,
        make_schedule(recipe.diffusion),
        by_name(recipe.diffusion.prediction),
        autoencoder,
        TextConditioner(tokenizer, tower),
    )


def make_schedule(config: DiffusionConfig) -> DiscreteSchedule:
    """The schedule of a recipe."""
    if config.betas == "cosine":
        betas = cosine_betas(config.times)
    else:
        law = linear_betas if config.betas == "linear" else scaled_linear_betas
        betas = law(config.times, config.beta_start, config.beta_end)
    return DiscreteSchedule.from_betas(
        rescale_zero_terminal_snr(betas) if config.zero_terminal_snr else betas
    )


def write_parts(folder: Path, parts: Parts) -> None:
    """Writes the model in diffusers' layout: either whole, or not at all."""
    with replacing_folder(folder) as model:
        write_unet(model / "unet", parts.unet)
        write_autoencoder(model / "vae", parts.autoencoder)
        write_text_tower(model / "text_encoder", parts.text.tower)
        (model / "tokenizer").mkdir()
        parts.text.tokenizer.save(model / "tokenizer")


def _tokenizer(config: TextConfig, pictures: PictureFolder) -> ClipTokenizer:
    if config.tokenizer is not None:
        return read_tokenizer(config.tokenizer)
    captions: Iterable[str] = (text for item in pictures.items for text in item.captions)
    return ClipTokenizer.train(captions, config.vocab_size, config.length)


def _build(config: UNetConfig) -> UNet:
    try:
        return UNet(config)
    except ValueError as error:
        raise SafelightError(f"[unet] cannot be built: {error}") from error


def _check(name: str, value: int | None, of: str, expected: int) -> None:
    if value != expected:
        raise SafelightError(f"{name} = {value} should be {expected}, as {of}.")
