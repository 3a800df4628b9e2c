"""Runs training recipes."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from safelight.app.autoencoder_training import train_autoencoder
from safelight.app.recipe import LatentRecipe, Recipe, read_recipe
from safelight.errors import SafelightError
from safelight.train.loop import Outcome


def run_recipe(path: Path, overrides: Sequence[str] = (), *, resume: bool = False) -> Outcome:
    """Trains by a recipe file; the trained model is then in `model` in the recipe's output folder.

    `overrides` are such as "optim.lr=1e-4". Raises `SafelightError` for a mistake in the recipe,
    unreadable data, an output folder in use without `resume`, or a loss that is no longer finite.
    """
    return run(read_recipe(path, tuple(overrides)), resume=resume)


def run(recipe: Recipe, *, resume: bool = False) -> Outcome:
    """Trains by a recipe whose paths are absolute, as `run_recipe`."""
    if isinstance(recipe, LatentRecipe):
        from safelight.app.latent_training import train_latent

        return train_latent(recipe, resume=resume)
    return train_autoencoder(recipe, resume=resume)


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
