"""What a picture is to be made under beside its prompt, as a user asks for it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from PIL import Image

from safelight.errors import SafelightError
from safelight.types import Box

_MOST_WEIGHT = 100.0

Value: TypeAlias = str | Path | Image.Image | tuple[Box, ...]


@dataclass(frozen=True)
class Condition:
    """One condition that the model has learned.

    Attributes:
        kind: of the condition, such as "depth"; one that the model names in its conditions.json.
        value: a class by its name; boxes, for a layout; else a picture or its file: a map, or the
            picture that is to be enlarged.
        scale: of the guidance by it alone. None is 1 for maps and pictures, which are then told on
            both sides of the prompt's guidance, and the prompt's own for classes and layouts.
    """

    kind: str
    value: Value
    scale: float | None = None

    def check(self) -> None:
        """Raises `SafelightError` for a scale that is none."""
        if self.scale is not None and not 0 <= self.scale < math.inf:
            raise SafelightError(
                f"The scale of condition {self.kind} should be a finite number from 0 up, got "
                f"{self.scale}."
            )


@dataclass(frozen=True)
class ImagePrompt:
    """A picture that speaks beside the prompt, by an IP-Adapter.

    Attributes:
        picture: a file, or a picture in memory.
        weight: how loudly: 1 as it was trained, 0 not at all.
    """

    picture: str | Path | Image.Image
    weight: float = 1.0

    def check(self) -> None:
        """Raises `SafelightError` for a weight that is none."""
        if not (math.isfinite(self.weight) and abs(self.weight) <= _MOST_WEIGHT):
            raise SafelightError(
                f"The weight of an image prompt should lie between -{_MOST_WEIGHT:g} and "
                f"{_MOST_WEIGHT:g}, got {self.weight}."
            )
