"""Chooses recipes for a folder of pictures: by the pictures, the bundled model and the machine."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, cast

import torch
from torch import Tensor

from safelight.app.latent_parts import conditioner
from safelight.app.recipe import AutoencoderRecipe, LatentRecipe, keys_of, overridden
from safelight.app.running import (
    MODEL,
    check_sizes,
    choose_device,
    open_autoencoder,
    own_memory,
)
from safelight.app.training_cost import Cost, cost_of, free_memory, in_words
from safelight.app.training_previews import psnr, reconstruct, some_pixels
from safelight.checkpoints.folder import Folder, read_folder
from safelight.config import Value, to_dict, to_toml
from safelight.data.config import DataConfig, FolderConfig
from safelight.data.folders import PictureFolder, gather
from safelight.diffusion.denoiser import Denoiser
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder
from safelight.train.autoencoder_task import AutoencoderLossConfig, AutoencoderTask, reconstruct_kl
from safelight.train.latent_task import LatentTask, latent_objective
from safelight.train.loop import LoopConfig
from safelight.train.optim import OptimConfig, autocast_dtype
from safelight.types import Batch

AUTOENCODER = "autoencoder"  # the folder in the output that holds a fine-tuned autoencoder

SUFFICIENT_PSNR = 27.0  # dB; below it a viewer tells a reconstruction from the picture at a glance
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_BATCHES = {"cpu": (32, 16, 8, 4, 2, 1), "cuda": (128, 64, 32, 16, 8, 4, 2, 1)}
_MEMORY_SHARE = 0.6  # of what is free
_HOURS = {"autoencoder": 1.5, "unet": 4.0}  # at most, whatever the folder's size


ChosenRecipe: TypeAlias = AutoencoderRecipe | LatentRecipe


@dataclass(frozen=True)
class Choice:
    """Recipes to run one after the other, and why, in sentences for the user."""

    recipes: tuple[ChosenRecipe, ...]
    reasons: tuple[str, ...]


def choose_recipes(folder: Path, output: Path, base: Path, overrides: Sequence[str] = ()) -> Choice:
    """Recipes that teach the model in the folder `base` the pictures in `folder`.

    The autoencoder is used as it is where its reconstructions of these pictures reach
    `SUFFICIENT_PSNR`, else it is fine-tuned first. Batch size and number of steps follow from a few
    steps tried on this machine and from the number of pictures. Overrides such as
    "loop.batch_size=8" are of the last recipe, and those of `device` and `data` of both; what is
    left open is chosen around them.

    Raises `SafelightError` if there are no readable pictures, the model cannot be trained, or an
    override is not of a recipe.
    """
    data = DataConfig((FolderConfig(folder.absolute()),))
    latent = overridden(LatentRecipe(output=output, data=data, base=base), overrides)
    device = choose_device(latent.device)
    model = read_folder(latent.base or base)
    if latent.autoencoder is not None:
        model = replace(model, autoencoder=open_autoencoder(latent.autoencoder))
    size = model.defaults.width or (model.unet.config.sample_size or 64) * model.autoencoder.factor
    latent = replace(
        latent,
        data=replace(data, size=size),
        optim=OptimConfig(lr=2e-4, schedule="cosine", warmup=100),
    )
    latent = overridden(latent, overrides)
    check_sizes(latent.data, model.autoencoder.factor)
    pictures = gather(latent.data)
    sides = any(_SIDES.search(text) for item in pictures.items for text in item.captions)
    latent = overridden(replace(latent, data=replace(latent.data, flip=not sides)), overrides)
    data = latent.data
    reasons = [_about(pictures, data, sides)]

    pixels = some_pixels(pictures, data, 64)
    autoencoder = own_memory(model.autoencoder).to(device)
    quality = float(psnr(reconstruct(autoencoder, pixels, device), pixels).mean())
    enough = quality >= SUFFICIENT_PSNR or not isinstance(autoencoder, Autoencoder)
    enough = enough or latent.autoencoder is not None
    whose = "chosen" if latent.autoencoder is not None else "bundled"
    verdict = "used as it is" if enough else f"fine-tuned first, being below {SUFFICIENT_PSNR:g} dB"
    reasons.append(f"The {whose} autoencoder gives {quality:.1f} dB on them: {verdict}.")

    recipes: list[ChosenRecipe] = []
    if not enough and isinstance(autoencoder, Autoencoder):
        first = AutoencoderRecipe(
            output=output / AUTOENCODER,
            data=data,
            base=latent.base,
            device=latent.device,
            loss=AutoencoderLossConfig(perceptual=0.0, gradient=0.5),
            optim=OptimConfig(lr=2e-4, schedule="cosine", warmup=100),
        )
        cost = _autoencoder_cost(first, autoencoder, pixels, device)
        seen = min(max(40 * len(pictures.items), 16_000), 80_000)
        loop, reason = _length("autoencoder", seen, cost, device)
        recipes.append(replace(first, loop=loop))
        reasons.append(f"Autoencoder: {reason}")
        latent = replace(latent, autoencoder=output / AUTOENCODER / MODEL)
    cost = _unet_cost(latent, model, pictures, device)
    seen = min(max(200 * len(pictures.items), 20_000), 400_000)
    keys = keys_of(overrides)
    loop, reason = _length(
        "unet",
        seen,
        cost,
        device,
        parts=latent.optim.accumulate,
        batch_size=latent.loop.batch_size if "loop.batch_size" in keys else None,
        steps=latent.loop.steps if "loop.steps" in keys else None,
    )
    recipes.append(overridden(replace(latent, loop=loop), overrides))
    reasons.append(f"U-Net and text tower: {reason}")
    return Choice(tuple(recipes), tuple(reasons))


def differing(values: Mapping[str, Value], defaults: Mapping[str, Value]) -> dict[str, Value]:
    """The values that are not the defaults, nested tables included."""
    found: dict[str, Value] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            inner = differing(value, default)
            if inner:
                found[key] = inner
        elif value != default:
            found[key] = value
    return found


def shown(recipe: ChosenRecipe) -> str:
    """A recipe as TOML, without what is as by default."""
    plain = replace(
        type(recipe)(output=recipe.output, data=DataConfig(recipe.data.folders)), kind=recipe.kind
    )
    named: dict[str, Value] = {"kind": recipe.kind, "output": str(recipe.output)}
    changed = differing(to_dict(recipe), to_dict(plain))
    data = changed.pop("data", {})
    folders = to_dict(recipe.data)["folders"]
    return to_toml({**named, **changed, "data": {"folders": folders, **cast(_Table, data)}})


def _about(pictures: PictureFolder, data: DataConfig, sides: bool) -> str:
    mirrored = "mirrored at random" if data.flip else "not mirrored"
    if sides and not data.flip:
        mirrored += ", as captions tell left from right"
    return f"{pictures.summary()}; trained at {data.size}x{data.size} pixels, {mirrored}."


def _autoencoder_cost(
    recipe: AutoencoderRecipe, autoencoder: Autoencoder, pixels: Tensor, device: torch.device
) -> Cost:
    dtype = autocast_dtype(recipe.optim.precision, device)
    reconstruct = reconstruct_kl(autoencoder, recipe.loss, dtype)
    task = AutoencoderTask(autoencoder, reconstruct, recipe.loss, None)
    tried = pixels[:_TRIED]
    return cost_of(task, Batch(("",) * len(tried), pixels=tried), recipe.optim, device)


def _unet_cost(
    recipe: LatentRecipe, model: Folder, pictures: PictureFolder, device: torch.device
) -> Cost:
    text = conditioner(model)
    for module in (model.unet, text.towers[0]):
        own_memory(module)
    denoiser = Denoiser(
        model.unet,
        model.scheduler.parameterization(),
        model.scheduler.schedule(),
        autocast_dtype(recipe.optim.precision, device),
    )
    objective = latent_objective(recipe.objective, denoiser)
    task = LatentTask({"unet": model.unet, "text": text.towers[0]}, denoiser, text, objective)
    items = pictures.items[:_TRIED]
    side = recipe.data.size // model.autoencoder.factor
    latents = torch.zeros(len(items), model.unet.config.out_channels, side, side)
    batch = Batch(tuple(item.captions[0] for item in items), latents=latents)
    return cost_of(task, batch, recipe.optim, device)


def _length(
    what: str,
    seen: int,
    cost: Cost,
    device: torch.device,
    *,
    parts: int = 1,
    batch_size: int | None = None,
    steps: int | None = None,
) -> tuple[LoopConfig, str]:
    """How long to train so that `seen` pictures are seen, in an acceptable time, in words too.

    Batches are worked off in `parts`. A batch size and steps that are given are kept.
    """
    free = free_memory(device)
    if batch_size is None:
        batch_size = _largest_batch(what, cost, device, parts, free)
    if steps is None:
        affordable = _HOURS[what] * 3600 / cost.seconds_per_picture
        steps = max(round(min(seen, affordable) / batch_size), 100)
    pause = min(max(steps // 20, 50), 1000)
    loop = LoopConfig(
        steps=steps,
        batch_size=batch_size,
        ema=0.999 if steps >= 5000 else 0.99,
        save_every=pause,
        preview_every=pause,
    )
    memory = cost.memory(math.ceil(batch_size / parts))
    return loop, (
        f"{steps:,} steps of {batch_size} pictures, {in_words(cost.seconds(steps * batch_size))}, "
        f"{memory / 1e9:.1f} GB of memory ({free / 1e9:.1f} GB are free)."
    )


def _largest_batch(what: str, cost: Cost, device: torch.device, parts: int, free: int) -> int:
    for size in _BATCHES.get(device.type, _BATCHES["cpu"]):
        if cost.memory(math.ceil(size / parts)) <= _MEMORY_SHARE * free:
            return size
    raise SafelightError(
        f"Training the {what} takes {cost.memory(1) / 1e9:.1f} GB of memory even one picture "
        f"at a time; {free / 1e9:.1f} GB are free."
    )


_TRIED = 8  # pictures in a step that is tried
_Table = Mapping[str, Value]
