"""Axes of a grid: "steps=5,10,20", "seed=1-4", "words=red,blue"."""

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from safelight.config import near
from safelight.errors import SafelightError

WORDS = "words"
"""The axis whose first value is replaced in the prompts by each."""

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_RANGE = re.compile(
    rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*(?:\(\s*({_NUMBER})\s*\)|\[\s*(\d+)\s*\])?\s*"
)
_FILES = (  # of which a label is the name alone
    *("model", "lora", "vae", "refiner", "guide", "embedding"),
    *("image", "mask", "depth", "control", "control-mask"),
)
_MOST = 1000  # values of an axis


@dataclass(frozen=True)
class Axis:
    """What is varied, as an option of `safelight generate` is called, and its values."""

    name: str
    values: tuple[str, ...]

    def label(self, value: str) -> str:
        """What stands beside a row or column."""
        if self.name in (WORDS, "prompt"):
            return value
        return f"{self.name}: {Path(value).name if self.name in _FILES else value}"


def axis_of(text: str, known: Collection[str], numbers: Collection[str]) -> Axis:
    """Reads an axis: a known name, "=", and values with commas, quoted where they hold commas.

    Of `numbers` a value may be a range, as in AUTOMATIC1111's web UI: "1-5", "1-10(+3)" by its
    step, "1-10[5]" by its number of values.

    Raises `SafelightError` for an unknown name, no value, or a range that is none.
    """
    name, equals, listed = text.partition("=")
    name = name.strip().replace("_", "-")
    if not equals:
        raise SafelightError(f"An axis should be such as steps=5,10,20; got {text!r}.")
    if name not in known:
        raise SafelightError(f"A grid has no axis {name!r}. {near(name, known)}")
    [parts] = csv.reader([listed.replace("\n", " ")], skipinitialspace=True) or [[]]
    values = [part.strip() for part in parts]
    if name in numbers:
        values = [value for part in values for value in _spread(name, part)]
    if not values or (not all(values) and name not in (WORDS, "negative")):
        raise SafelightError(f"The axis {name} has an empty value in {listed!r}.")
    if len(values) > _MOST:
        raise SafelightError(f"The axis {name} has {len(values)} values; {_MOST} is the most.")
    return Axis(name, tuple(values))


def replaced(axis: Axis, value: str, prompts: tuple[str, str]) -> tuple[str, str]:
    """A prompt and its negative with the axis' first word replaced by another.

    Raises `SafelightError` if neither has it.
    """
    first = axis.values[0]
    if not first or not any(first in prompt for prompt in prompts):
        raise SafelightError(
            f"The axis words replaces {first!r}, which neither the prompt nor the negative has."
        )
    prompt, negative = (text.replace(first, value) for text in prompts)
    return prompt, negative


def _spread(name: str, text: str) -> list[str]:
    """The numbers of a range; anything else as it is."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return [text]
    start, end = float(match[1]), float(match[2])
    whole = "." not in text
    if match[4] is not None:
        count = int(match[4])
        gap = (end - start) / max(count - 1, 1)
        numbers = [start + i * gap for i in range(min(count, _MOST + 1))]
    else:
        step = float(match[3] or (1 if end >= start else -1))
        if step == 0 or (end - start) / step < 0:
            raise SafelightError(f"The axis {name} never comes from {match[1]} to {text!r}.")
        count = int((end - start) / step + 1e-9) + 1
        numbers = [start + i * step for i in range(min(count, _MOST + 1))]
    return [str(int(number)) if whole else f"{number:.10g}" for number in numbers]
