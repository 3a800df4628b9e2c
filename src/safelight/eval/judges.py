"""What judges say of pictures, and how often it is good: seen by the same eyes in real pictures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from safelight.data.folders import PictureItem
from safelight.eval.caption_ranker import CaptionRanker
from safelight.eval.scene_judge import SceneJudge
from safelight.eval.scene_truth import check, read_truth

Verdict = Mapping[str, bool | None]
"""Whether a picture is right, aspect by aspect; None where that was not asked."""


@dataclass(frozen=True)
class Rate:
    """How many of how many were right, and the 95 % interval of their part (Wilson 1927)."""

    right: int
    of: int

    @property
    def part(self) -> float:
        """The part that was right, 0 to 1; nan of none."""
        return self.right / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The least and the greatest part that is consistent with these numbers."""
        if not self.of:
            return (0.0, 1.0)
        z = 1.959964
        centre = (self.part + z * z / (2 * self.of)) / (1 + z * z / self.of)
        spread = self.part * (1 - self.part) / self.of + z * z / (4 * self.of**2)
        half = z * math.sqrt(spread) / (1 + z * z / self.of)
        return (max(0.0, centre - half), min(1.0, centre + half))


@runtime_checkable
class Judge(Protocol):
    """Looks at pictures that were made for the items' first captions.

    `main` is the aspect that counts where there is room for one only.
    """

    main: str

    def __call__(
        self, pixels: Float[Tensor, "n 3 h w"], items: Sequence[PictureItem]
    ) -> list[Verdict]:
        """One verdict for each picture."""
        ...


class SceneVerdicts:
    """Whether the solids that a prompt asks for are there: see `scene_truth.check`."""

    main = "colour and shape"

    def __init__(self, judge: SceneJudge):
        self._judge = judge

    def __call__(
        self, pixels: Float[Tensor, "n 3 h w"], items: Sequence[PictureItem]
    ) -> list[Verdict]:
        """One verdict for each picture; empty for an item without solids."""
        verdicts: list[Verdict] = []
        for item, found in zip(items, self._judge.find(pixels), strict=True):
            truth = read_truth(item.captions[0], item.extras)
            verdicts.append({} if truth is None else check(truth, found))
        return verdicts


class CaptionVerdicts:
    """Whether a picture's own caption fits it best among 100, the others drawn from `captions`."""

    main = "own caption first of 100"

    def __init__(self, ranker: CaptionRanker, captions: Sequence[str]):
        self._ranker = ranker
        self._captions = tuple(captions)

    def __call__(
        self, pixels: Float[Tensor, "n 3 h w"], items: Sequence[PictureItem]
    ) -> list[Verdict]:
        """One verdict for each picture."""
        own = [item.captions[0] for item in items]
        ranks = self._ranker.ranks(pixels, own, self._captions)
        return [
            {self.main: bool(rank == 0), "own caption in first 5": bool(rank < 5)} for rank in ranks
        ]


def rates(verdicts: Sequence[Verdict]) -> dict[str, Rate]:
    """How often each aspect was right, of the pictures where it was asked."""
    counts: dict[str, Rate] = {}
    for verdict in verdicts:
        for aspect, holds in verdict.items():
            if holds is not None:
                before = counts.get(aspect, Rate(0, 0))
                counts[aspect] = Rate(before.right + holds, before.of + 1)
    return counts
