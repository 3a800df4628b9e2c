"""Runs training recipes: brings data, networks, losses and the loop together."""

import sys
import tomllib
from argparse import ArgumentParser
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from safelight.app.recipe import AutoencoderRecipe, Recipe, VQRecipe, changes, read_recipe
from safelight.app.training_previews import reconstruction_preview
from safelight.checkpoints.atomic import replacing_folder, write_text
from safelight.checkpoints.components import read_autoencoder, write_autoencoder
from safelight.checkpoints.features import load_features
from safelight.config import read_toml, to_dict, to_toml
from safelight.data.batches import PictureBatches, prefetch
from safelight.data.config import FolderConfig
from safelight.data.folders import gather
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder, AutoencoderConfig
from safelight.models.vq import VQAutoencoder, VQConfig
from safelight.train.autoencoder_task import AutoencoderTask, reconstruct_kl, reconstruct_vq
from safelight.train.loop import BatchesFrom, Hooks, Outcome, train
from safelight.train.optim import autocast_dtype
from safelight.types import Batch

M = TypeVar("M", bound=nn.Module)

RECIPE = "recipe.toml"  # the recipe in a training's output
MODEL = "model"  # the folder in a training's output that holds the model, in diffusers' layout


def run_recipe(path: Path, overrides: Sequence[str] = (), *, resume: bool = False) -> Outcome:
    """Trains by a recipe file; the trained model is then in `model` in the recipe's output folder.

    `overrides` are such as "optim.lr=1e-4". Raises `SafelightError` for a mistake in the recipe,
    unreadable data, an output folder in use without `resume`, or a loss that is no longer finite.
    """
    return run(read_recipe(path, tuple(overrides)), resume=resume)


def run(recipe: Recipe, *, resume: bool = False) -> Outcome:
    """Trains by a recipe whose paths are absolute, as `run_recipe`."""
    return _train_autoencoder(recipe, resume=resume)


def _train_autoencoder(recipe: AutoencoderRecipe | VQRecipe, *, resume: bool) -> Outcome:
    device = choose_device(recipe.device)
    folder = gather(recipe.data)
    say(f"Data: {folder.summary()}.")
    autoencoder = _autoencoder(recipe)
    say(f"Autoencoder: {describe(autoencoder)}.")
    dtype = autocast_dtype(recipe.optim.precision, device)
    loss = recipe.loss
    reconstruct = (
        reconstruct_vq(autoencoder, loss, dtype)
        if isinstance(autoencoder, VQAutoencoder)
        else reconstruct_kl(autoencoder, loss, dtype)
    )
    features = load_features(recipe.features, device) if recipe.features else None
    with seeded(recipe.loop.seed):
        task = AutoencoderTask(autoencoder, reconstruct, loss, features)
    shown = recipe.data
    if recipe.held_out is not None:
        shown = replace(shown, folders=(FolderConfig(recipe.held_out),))
    pictures = PictureBatches(folder, recipe.data, recipe.loop.batch_size)

    def export(step: int) -> None:
        with replacing_folder(recipe.output / MODEL) as model:
            write_autoencoder(model / "vae", autoencoder)

    _keep_recipe(recipe, resume=resume)
    return train(
        task,
        batches_from(pictures.batch),
        recipe.loop,
        recipe.optim,
        recipe.output,
        device=device,
        resume=resume,
        hooks=Hooks(reconstruction_preview(autoencoder, shown, device), export),
    )


def _autoencoder(recipe: AutoencoderRecipe | VQRecipe) -> Autoencoder | VQAutoencoder:
    """A new autoencoder, or the one to go on from."""
    if (recipe.base is None) == (recipe.model is None):
        raise SafelightError("A recipe needs either base (a folder to go on from) or [model].")
    if recipe.base is not None:
        found = read_autoencoder(recipe.base)
        kind = "vq" if isinstance(found, VQAutoencoder) else "autoencoder"
        if kind != recipe.kind:
            raise SafelightError(
                f"{recipe.base} holds a {type(found).__name__}, which kind = {kind!r} trains, "
                f"not {recipe.kind!r}."
            )
        return own_memory(found)
    with seeded(recipe.loop.seed):
        if isinstance(recipe.model, VQConfig):
            return VQAutoencoder(recipe.model)
        return Autoencoder(recipe.model or AutoencoderConfig())


def batches_from(batch: Callable[[int], Batch]) -> BatchesFrom:
    """Batches computed a few steps ahead in a thread."""
    return lambda start: prefetch(batch, start, depth=3)


def choose_device(name: str) -> torch.device:
    """The device of a recipe; "auto" is the GPU if there is one.

    Raises `SafelightError` for a name that torch does not know.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise SafelightError(
            f"device = {name!r} is not known; write auto, cpu, cuda or mps."
        ) from error


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Makes the initial weights of networks built inside a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def own_memory(module: M) -> M:
    """The same module with weights in memory of their own, not mapped from a file."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.clone()
    return module


def describe(module: nn.Module) -> str:
    """How many weights a network has."""
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M weights"


def _keep_recipe(recipe: Recipe, *, resume: bool) -> None:
    """Writes the recipe beside the result, and says what a resumed training changes."""
    path = recipe.output / RECIPE
    values = to_dict(recipe)
    if resume and path.is_file():
        for change in changes(read_toml(path), tomllib.loads(to_toml(values))):
            say(f"Changed since the training began: {change}.")
    write_text(path, to_toml(values))


def say(line: str) -> None:
    """Tells the user one line."""
    print(line, flush=True)


def main() -> int:
    """Trains by the recipe named on the command line."""
    parser = ArgumentParser(prog="python -m safelight.app.training")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    try:
        outcome = run_recipe(arguments.recipe, arguments.set, resume=arguments.resume)
    except SafelightError as error:
        print(f"safelight: {error}", file=sys.stderr)
        return 2
    return 0 if outcome.stopped is None else 128 + outcome.stopped


if __name__ == "__main__":
    sys.exit(main())
