"""Classes in the place of text: one learned token for each, and none for "no class".

Source: Rombach et al. 2022, section 4.3.1 and CompVis' `cin256-v2`, whose last class is the null.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from safelight.config import near
from safelight.errors import SafelightError
from safelight.types import TextFeatures


@dataclass(frozen=True)
class ClassConfig:
    """How many classes there are, the null among them, and the width of their tokens."""

    vocab_size: int = 1001
    hidden_size: int = 512

    @property
    def projection_dim(self) -> None:
        """There is no projection, which text towers have."""
        return None


class ClassEmbedder(nn.Module):
    """Class numbers (b, 1) to one context token each, (b, 1, hidden_size)."""

    def __init__(self, config: ClassConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)

    def forward(self, ids: Int64[Tensor, "b n"]) -> TextFeatures:
        """The rows of the table; the token is the pooled vector too."""
        tokens = self.embedding(ids)
        return TextFeatures(tokens=tokens, pooled=tokens[:, 0])


@dataclass(frozen=True)
class ClassReader:
    """Prompts to class numbers: "207", or a name from `names`, in any case; "" is the null.

    `names` holds a line for each class from 0, whose commas part other names of the same class.
    """

    classes: int  # without the null, which is the one after them
    names: tuple[str, ...] = ()

    def encode(self, texts: Sequence[str]) -> Int64[Tensor, "b 1"]:
        """Class numbers; `SafelightError` for a prompt that is no class."""
        return torch.tensor([[self._number(text.strip())] for text in texts], dtype=torch.int64)

    def _number(self, text: str) -> int:
        if not text:
            return self.classes
        if text.isdecimal() and len(text) < 10 and int(text) < self.classes:
            return int(text)
        known = self._known()
        if text.lower() in known:
            return known[text.lower()]
        hint = f" {near(text.lower(), list(known))}" if known else ""
        raise SafelightError(
            f"This model makes pictures of classes: expected a number from 0 to "
            f"{self.classes - 1}{' or a name' if known else ''}, got {text[:40]!r}.{hint}"
        )

    def _known(self) -> dict[str, int]:
        """Each name's class, the first where two have the same; whole lines are names too."""
        known: dict[str, int] = {}
        for number, line in enumerate(self.names):
            for name in (line, *line.split(",")):
                known.setdefault(name.strip().lower(), number)
        known.pop("", None)
        return known

    @staticmethod
    def from_file(path: Path, classes: int) -> "ClassReader":
        """Reads a file of names; `SafelightError` if it has not one line for each class."""
        try:
            names = tuple(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise SafelightError(f"{path} cannot be read as UTF-8 text: {error}.") from error
        if len(names) != classes:
            raise SafelightError(
                f"{path} names {len(names)} classes, its model has {classes}; give one a line, in "
                "the model's order."
            )
        return ClassReader(classes, names)
