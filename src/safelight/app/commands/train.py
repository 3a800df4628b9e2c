"""`safelight train`: a recipe, or a folder of pictures for which a recipe is chosen."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def train(
    source: Path,
    /,
    *,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    resume: Annotated[bool, Parameter(negative=())] = False,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
) -> int:
    """Train a model on a folder of pictures, or by a recipe.

    For a folder a recipe is chosen by its pictures and by this machine, printed with the expected
    time and memory, and written beside the result. A training that was stopped, by Ctrl-C too, goes
    on with --resume where it was, to the bit.

    Parameters
    ----------
    source
        A recipe (.toml), or a folder of pictures with captions: see docs/train.md.
    set_
        Changes one value of the recipe, such as --set optim.lr=1e-4; may be given often.
    resume
        Go on with a training that was stopped.
    output
        The folder for the result. [default: the recipe's, or runs/ and the folder's name]
    """
    from safelight.app.training import train_source

    return train_source(source, set_, resume=resume, output=output)
