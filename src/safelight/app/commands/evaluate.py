"""`safelight eval`: figures of a model, beside those of real pictures."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def evaluate(
    source: Path,
    /,
    *,
    model: str = "default",
    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("evaluation"),
    inception_weights: Annotated[Path | None, Parameter(show_default=False)] = None,
) -> int:
    """Measure a model.

    Parameters
    ----------
    source
        An evaluation file (.toml), such as
        recipes/default/evaluation.toml: see docs/evaluation.md.
    model
        A model's name or folder.
    output
        The folder for report.json, report.md and plots. It also
        keeps the pictures made, so that the same command goes
        on with what was stopped.
    inception_weights
        FID's InceptionV3, for distances that compare with others';
        without it they look through EfficientNet-Lite0.
    """
    from safelight.app.evaluation import evaluate as measure

    for path in measure(source, model, output, inception_weights):
        print(path)
    return 0
