"""What an evaluation file says, and everything of it that can be checked before measuring."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safelight.config import from_dict, read_toml
from safelight.errors import SafelightError
from safelight.eval.distances import LEAST_PICTURES


@dataclass(frozen=True)
class SubjectConfig:
    """One kind of picture: folders of real pictures, of which at most `most` are used.

    The model is asked for the first captions of `seen` and `held_out`. Distances are measured from
    `reference`; `others`, real pictures too, show what distance is reachable. `judge` is a folder
    that says whether what was asked is there, "scenes" or "captions" says of which kind. With
    `solids` only pictures with objects in their row count.
    """

    name: str
    seen: Path
    reference: Path
    others: Path
    held_out: Path | None = None
    judge: Path | None = None
    judge_kind: Literal["scenes", "captions"] = "captions"
    solids: bool = False
    most: int = 200
    most_held_out: int = 200


@dataclass(frozen=True)
class EvaluationFile:
    """An evaluation: what is measured, and how; None is the model's own choice."""

    subjects: tuple[SubjectConfig, ...]
    size: int | None = None  # pixels
    sampler: str | None = None
    steps: int | None = None
    scale: float | None = None
    seed: int = 0
    batch_size: int = 32
    sweep_prompts: int = 100
    sweep_scales: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
    sweep_steps: tuple[int, ...] = (4, 6, 8, 10, 15, 20, 30, 50)

    @property
    def sweeps(self) -> bool:
        """Whether anything is varied."""
        return bool(self.sweep_scales or self.sweep_steps)


def read_evaluation(path: Path) -> EvaluationFile:
    """Reads an evaluation file; `SafelightError` for what no model could be measured by."""
    if not path.is_file():
        raise SafelightError(f"No evaluation file {path}; expected a TOML file.")
    wanted = from_dict(EvaluationFile, read_toml(path), str(path))
    if not wanted.subjects:
        raise SafelightError(f"{path}: subjects is empty; name a kind of picture to measure.")
    least = {"batch_size": (wanted.batch_size, 1)}
    if wanted.sweeps:
        least["sweep_prompts"] = (wanted.sweep_prompts, LEAST_PICTURES)
    for place, subject in enumerate(wanted.subjects):
        least[f"subjects[{place}].most"] = (subject.most, LEAST_PICTURES)
        least[f"subjects[{place}].most_held_out"] = (subject.most_held_out, 1)
    for name, (number, fewest) in least.items():
        if number < fewest:
            raise SafelightError(f"{path}: {name} should be {fewest} or more, got {number}.")
    return wanted


def check_packages(wanted: EvaluationFile) -> None:
    """Raises `SafelightError` naming the extra that brings the packages this evaluation lacks."""
    scenes = any(subject.judge and subject.judge_kind == "scenes" for subject in wanted.subjects)
    needed = {"scipy": scenes, "matplotlib": wanted.sweeps}
    missing = [
        name for name, used in needed.items() if used and importlib.util.find_spec(name) is None
    ]
    if missing:
        raise SafelightError(
            f"This evaluation needs {' and '.join(missing)}, not installed here. "
            'Run: pip install "safelight[eval]"'
        )
