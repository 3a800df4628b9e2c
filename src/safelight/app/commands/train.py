"""`safelight train`: a recipe, or a folder of pictures for which a recipe is chosen."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def train(
    source: Path,
    /,
    *,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative=(), show_default=False)] = (),
    resume: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
) -> int:
    """Train a model on a folder of pictures, or by a recipe.

    Parameters
    ----------
    source
        A recipe (.toml), or a folder of pictures with captions:
        see docs/train.md.
    set_
        Changes one value of the recipe, such as --set
        optim.lr=1e-4; may be given often.
    resume
        Go on with a training that was stopped.
    output
        The folder for the result. [default: the recipe's, or
        runs/ and the folder's name]
    """
    from safelight.app.training import train_source

    return train_source(source, set_, resume=resume, output=output)
