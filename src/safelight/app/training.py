"""Runs training recipes."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from safelight.app.autoencoder_training import train_autoencoder
from safelight.app.control_training import train_control
from safelight.app.distillation_training import train_distillation
from safelight.app.latent_training import train_latent
from safelight.app.recipe import (
    ControlRecipe,
    DistillationRecipe,
    LatentRecipe,
    Recipe,
    TinyRecipe,
    VideoRecipe,
    keys_of,
    read_recipe,
)
from safelight.app.running import MODEL, RECIPE, say
from safelight.app.tiny_training import train_tiny
from safelight.app.video_training import train_video
from safelight.checkpoints.atomic import write_text
from safelight.config import to_dict, to_toml
from safelight.errors import SafelightError
from safelight.pipelines.find import DEFAULT, find_model
from safelight.train.checkpoint import to_go_on_from
from safelight.train.loop import Outcome


def run_recipe(path: Path, overrides: Sequence[str] = (), *, resume: bool = False) -> Outcome:
    """Trains by a recipe file; the trained model is then in `model` in the recipe's output folder.

    `overrides` are such as "optim.lr=1e-4". Raises `SafelightError` for a mistake in the recipe,
    unreadable data, an output folder in use without `resume`, or a loss that is no longer finite.
    """
    return run(read_recipe(path, tuple(overrides)), resume=resume)


def run(recipe: Recipe, *, resume: bool = False) -> Outcome:
    """Trains by a recipe whose paths are absolute, as `run_recipe`."""
    to_go_on_from(recipe.output, resume=resume)  # refuses a folder in use before any work
    if isinstance(recipe, LatentRecipe):
        return train_latent(recipe, resume=resume)
    if isinstance(recipe, ControlRecipe):
        return train_control(recipe, resume=resume)
    if isinstance(recipe, DistillationRecipe):
        return train_distillation(recipe, resume=resume)
    if isinstance(recipe, TinyRecipe):
        return train_tiny(recipe, resume=resume)
    if isinstance(recipe, VideoRecipe):
        return train_video(recipe, resume=resume)
    return train_autoencoder(recipe, resume=resume)


def train_source(
    source: Path, overrides: Sequence[str] = (), *, resume: bool = False, output: Path | None = None
) -> int:
    """Trains by a recipe, or on a folder of pictures by recipes chosen for it; the exit status.

    A folder's training goes to `output`, by default `runs/` and the folder's name; overrides are of
    its last recipe, that of the U-Net, and those of `device` and `data` of both. Resuming one goes
    on with the recipes that were chosen.
    Status 0 means done, 128 and the signal's number stopped by a signal. Errors as `run_recipe`.
    """
    if source.is_dir():
        return _train_folder(
            source, overrides, resume, output or Path("runs") / source.resolve().name
        )
    where = [] if output is None else [f"output={json.dumps(str(output.absolute()))}"]
    return _told(run_recipe(source, [*overrides, *where], resume=resume))


def _train_folder(source: Path, overrides: Sequence[str], resume: bool, output: Path) -> int:
    from safelight.app.recipe_choice import AUTOENCODER, choose_recipes, shown

    if "output" in keys_of(overrides):
        raise SafelightError(
            "A folder's training goes where --output says; leave out --set output."
        )
    output = output.absolute()
    first, last = output / AUTOENCODER / RECIPE, output / RECIPE
    for folder in (output, first.parent):
        to_go_on_from(folder, resume=resume)
    if not (resume and last.is_file()):
        choice = choose_recipes(source, output, find_model(DEFAULT), overrides)
        for reason in choice.reasons:
            say(reason)
        first.unlink(missing_ok=True)
        for recipe in choice.recipes:
            write_text(recipe.output / RECIPE, to_toml(to_dict(recipe)))
            say(f"\n# {recipe.output / RECIPE}\n{shown(recipe)}")
    if first.is_file():
        of_both = [text for text in overrides if text.lstrip().startswith(_OF_BOTH)]
        outcome = run_recipe(first, of_both, resume=True)
        if outcome.stopped is not None:
            return _told(outcome)
    outcome = run_recipe(last, overrides, resume=True)
    if outcome.stopped is None:
        say(f'Done. Try: safelight generate --model {output / MODEL} "..."')
    return _told(outcome)


_OF_BOTH = ("data.", "device")  # what autoencoder and U-Net share


def _told(outcome: Outcome) -> int:
    return 0 if outcome.stopped is None else 128 + outcome.stopped


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
    return _told(outcome)


if __name__ == "__main__":
    sys.exit(main())
