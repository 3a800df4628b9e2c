"""What all trainings by recipe share: the device, the seed, the kept recipe, words for the user."""

import tomllib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from safelight.app.recipe import Recipe, changes
from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.components import read_autoencoder
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.model import read_model
from safelight.config import read_toml, to_dict, to_toml
from safelight.data.batches import prefetch
from safelight.data.config import DataConfig
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.pipelines.load import has_device
from safelight.pipelines.request import check_multiple
from safelight.train.checkpoint import Basis
from safelight.train.loop import Hooks, Outcome, Preview, train
from safelight.train.task import Task
from safelight.types import Batch

M = TypeVar("M", bound=nn.Module)

RECIPE = "recipe.toml"  # the recipe in a training's output
MODEL = "model"  # the folder in a training's output that holds the model, in diffusers' layout


def choose_device(name: str) -> torch.device:
    """The device of a recipe; "auto" is the GPU if there is one.

    Raises `SafelightError` for a name that torch does not know, or a device that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SafelightError(
            f"device = {name!r} is not known; write auto, cpu, cuda or mps."
        ) from error
    if not has_device(str(device)):
        raise SafelightError(
            f"device = {name!r} cannot be used here; write auto, which takes what there is, or cpu."
        )
    return device


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Makes the initial weights of networks built inside a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def open_autoencoder(folder: Path) -> AnyAutoencoder:
    """The autoencoder in a folder or in its `vae`, ready to be trained."""
    return own_memory(read_autoencoder(folder / "vae" if (folder / "vae").is_dir() else folder))


def own_memory(module: M) -> M:
    """The same module with weights in memory of their own, not mapped from a file."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.data = tensor.data.clone()
    return module


def open_whole(path: Path) -> Folder:
    """The model at a path, ready to be trained."""
    model = read_model(path)
    for module in (model.unet, model.autoencoder, *model.text_towers):
        own_memory(module)
    return model


def check_sizes(data: DataConfig, factor: int) -> None:
    """Raises `SafelightError` naming the nearest sizes if pictures of these sizes have no latents,
    a latent being `factor` pixels wide.
    """
    check_multiple("data.size", data.size, factor)
    if data.buckets:
        check_multiple("data.multiple", data.multiple, factor)


def train_by(
    recipe: Recipe,
    task: Task,
    batch: Callable[[int], Batch],
    preview: Callable[[int], Preview],
    export: Callable[[int], None],
    *,
    device: torch.device,
    resume: bool,
    basis: Basis,
) -> Outcome:
    """Runs the loop of a recipe, whose batch of a step is a pure function of that step; keeps the
    recipe beside the result.
    """
    return train(
        task,
        lambda start: prefetch(batch, start, depth=3),
        recipe.loop,
        recipe.optim,
        recipe.output,
        device=device,
        resume=resume,
        hooks=Hooks(preview, export, lambda: keep_recipe(recipe, resume=resume)),
        basis=basis,
    )


def describe(module: nn.Module) -> str:
    """How many weights a network has."""
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M weights"


def keep_recipe(recipe: Recipe, *, resume: bool) -> None:
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
