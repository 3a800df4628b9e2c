"""The model that latent training starts from: made new around an autoencoder, or read."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from safelight.app.recipe import LatentRecipe, TextConfig
from safelight.app.running import open_autoencoder, open_whole, seeded
from safelight.checkpoints.components import read_tokenizer
from safelight.checkpoints.folder import Defaults, Folder
from safelight.checkpoints.scheduler_files import scheduler_to_diffusers
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.conditioners.text import TextConditioner
from safelight.data.folders import PictureFolder
from safelight.diffusion.samplers import sampler_name
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import latent_channels
from safelight.models.clip import ClipText
from safelight.models.tokenizer import EOS, ClipTokenizer
from safelight.models.unet import UNet, UNetConfig, zero_residuals


def start_model(recipe: LatentRecipe, pictures: PictureFolder) -> Folder:
    """The model to train: read from the recipe's `base`, or of its shapes around `autoencoder`.

    Raises `SafelightError` if the recipe names neither, if shapes do not fit each other, or if the
    finished model could not be written or sampled from as it asks for.
    """
    if recipe.base is not None:
        if recipe.unet is not None:
            raise SafelightError("[unet] cannot be chosen where a base is gone on from.")
        model = _base(recipe.base)
        if recipe.diffusion is not None:
            model = replace(model, scheduler=recipe.diffusion)
        if recipe.autoencoder is not None:
            model = replace(model, autoencoder=open_autoencoder(recipe.autoencoder))
    elif recipe.autoencoder is not None:
        model = _made(recipe, recipe.autoencoder, pictures)
    else:
        raise SafelightError(
            "A recipe needs base (a model's folder to go on from), or autoencoder (an "
            "autoencoder's folder) with [unet]."
        )
    model = replace(model, defaults=_defaults(recipe, model.defaults))
    _check_sampling(model)
    return model


def conditioner(model: Folder) -> TextConditioner:
    """What turns captions into the model's conditioning.

    Raises `SafelightError` for a model with other than one text tower.
    """
    if len(model.text_towers) != 1:
        raise SafelightError(
            f"A model with {len(model.text_towers)} text towers cannot be trained; expected one."
        )
    return TextConditioner(model.tokenizers, model.text_towers)


def _base(folder: Path) -> Folder:
    model = open_whole(folder)
    config, beside = model.unet.config, model.beside
    channels = beside.channels(latent_channels(model.autoencoder), model.autoencoder.factor)
    vector = (config.class_dim, config.added_dim, config.guidance_dim)
    if config.in_channels - config.out_channels != channels or vector != (
        beside.classes,
        None,
        None,
    ):
        raise SafelightError(
            f"{folder} holds a {model.pipeline_class} whose U-Net takes more than latents and "
            "text; such models cannot be gone on from."
        )
    return model


def _made(recipe: LatentRecipe, folder: Path, pictures: PictureFolder) -> Folder:
    if recipe.unet is None:
        raise SafelightError("A recipe with autoencoder needs the U-Net's shape in [unet].")
    autoencoder = open_autoencoder(folder)
    tokenizer = _tokenizer(recipe.text, pictures)
    tower_config = replace(
        recipe.text.tower,
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=tokenizer.length,
        eos_token_id=tokenizer.id_of(EOS),
    )
    latent = latent_channels(autoencoder)
    _check("unet.in_channels", recipe.unet.in_channels, latent, "the autoencoder's latents")
    _check("unet.out_channels", recipe.unet.out_channels, latent, "the autoencoder's latents")
    _check(
        "unet.cross_attention_dim",
        recipe.unet.cross_attention_dim,
        tower_config.hidden_size,
        "text.tower.hidden_size",
    )
    heads = tower_config.num_attention_heads
    if heads < 1 or tower_config.hidden_size % heads:
        raise SafelightError(
            f"text.tower.hidden_size = {tower_config.hidden_size} does not split into "
            f"text.tower.num_attention_heads = {heads}."
        )
    config = replace(recipe.unet, sample_size=recipe.data.size // autoencoder.factor)
    with seeded(recipe.loop.seed):
        unet, tower = _build(config), ClipText(tower_config)
    return Folder(unet, autoencoder, (tower,), (tokenizer,), recipe.diffusion or SchedulerConfig())


def _check_sampling(model: Folder) -> None:
    """Raises `SafelightError` for what would else come to light when the trained model is written
    or used.
    """
    scheduler_to_diffusers(model.scheduler)
    model.scheduler.schedule()
    sampler = sampler_name(model.defaults.sampler or model.scheduler.sampler)
    model.scheduler.with_sampler(sampler).sigmas(model.defaults.steps or 1)


def _defaults(recipe: LatentRecipe, former: Defaults) -> Defaults:
    """What the recipe says, else what the base said; the size is that of the training."""
    said, size = recipe.defaults, recipe.data.size
    return Defaults(
        sampler=said.sampler or former.sampler,
        steps=said.steps or former.steps,
        scale=former.scale if said.scale is None else said.scale,
        width=said.width or size,
        height=said.height or size,
        control_mode=said.control_mode or former.control_mode,
    )


def _tokenizer(config: TextConfig, pictures: PictureFolder) -> ClipTokenizer:
    if config.tokenizer is not None:
        return read_tokenizer(config.tokenizer)
    captions: Iterable[str] = (text for item in pictures.items for text in item.captions)
    try:
        return ClipTokenizer.train(captions, config.vocab_size, config.length)
    except SafelightError as error:
        raise SafelightError(f"[text] {error}") from error


def _build(config: UNetConfig) -> UNet:
    try:
        unet = UNet(config)
    except ValueError as error:
        raise SafelightError(f"[unet] cannot be built: {error}") from error
    zero_residuals(unet)
    return unet


def _check(name: str, value: int | None, expected: int, of: str) -> None:
    if value != expected:
        raise SafelightError(f"{name} = {value} should be {expected}, as {of}.")
