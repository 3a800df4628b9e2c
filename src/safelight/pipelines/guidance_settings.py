"""How guidance works beside its one scale, as a user asks for it."""

import math
import re
from dataclasses import dataclass

from safelight.errors import SafelightError

GUIDE_SCALE = 2.0  # of a weaker model, where nobody says
_SCALE_FORMS = "a number, one for each part of the steps (7,7,5,3) or a line over them (7:1)"


@dataclass(frozen=True)
class Scales:
    """Scales of classifier-free guidance that change over the steps.

    `values` are spread over the steps: each holds for an equal part of them, or, where they are
    `linear`, they are evenly spaced points that straight lines join, the first at the first step
    and the last at the last. One and below are no guidance.
    """

    values: tuple[float, ...]
    linear: bool = False

    @staticmethod
    def of(text: str) -> "Scales":
        """Reads `7,7,5,3`, each for a part of the steps, and `7:1`, on a line."""
        linear = ":" in text
        try:
            values = tuple(float(part) for part in text.split(":" if linear else ","))
        except ValueError as error:
            raise SafelightError(f"scale should be {_SCALE_FORMS}, got {text!r}.") from error
        scales = Scales(values, linear)
        scales.check()
        return scales

    def over(self, steps: int) -> tuple[float, ...]:
        """The scale of each step."""
        if not self.linear:
            return tuple(self.values[i * len(self.values) // steps] for i in range(steps))
        places = [i * (len(self.values) - 1) / max(steps - 1, 1) for i in range(steps)]
        return tuple(self._at(place) for place in places)

    def check(self, steps: int | None = None) -> None:
        """Raises `SafelightError` for scales that are none, or are more than the steps."""
        if not self.values or not all(math.isfinite(v) and v >= 0 for v in self.values):
            raise SafelightError(
                f"Each scale should be a finite number from 0 up, got {list(self.values)}."
            )
        if steps is not None and len(self.values) > steps:
            raise SafelightError(
                f"{len(self.values)} scales are more than {steps} steps; give one a step at most."
            )

    def _at(self, place: float) -> float:
        before = min(int(place), len(self.values) - 1)
        after = min(before + 1, len(self.values) - 1)
        return self.values[before] + (place - before) * (self.values[after] - self.values[before])


@dataclass(frozen=True)
class Projection:
    """Adaptive projected guidance; as it stands by default, it is classifier-free guidance.

    Attributes:
        eta: the part of guidance along the prediction that is kept; 0 saturates colours least.
        norm_threshold: the length that guidance has at most, over all latents; 0: any.
        momentum: how much of earlier guidance is added, above -1 and below 1.
    """

    eta: float = 1.0
    norm_threshold: float = 0.0
    momentum: float = 0.0

    def check(self) -> None:
        """Raises `SafelightError` for a number out of its range."""
        if not math.isfinite(self.eta):
            raise SafelightError(f"apg_eta should be a finite number, got {self.eta}.")
        _from_zero("apg_norm_threshold", self.norm_threshold)
        if not -1 < self.momentum < 1:
            raise SafelightError(
                f"apg_momentum should lie between -1 and 1, got {self.momentum}; the paper has "
                "-0.5 and -0.75."
            )


@dataclass(frozen=True)
class Guidance:
    """How guidance works beside its one scale; the defaults are classifier-free guidance alone.

    Attributes:
        scales: that change over the steps, in the place of the one scale.
        rescale: the part by which the network's output keeps its deviation, 0 to 1.
        interval: the noise levels sigma, lowest and highest, at which there is any guidance.
        pag_scale: of perturbed-attention guidance; 0 is none.
        pag_layers: patterns found in the paths of the self-attention layers that it perturbs.
        apg: adaptive projected guidance.
        perp_neg: how strongly the perpendicular part of the negative prompt counts; None takes the
            negative prompt as it is.
        guide_scale: of autoguidance by a weaker model; 1 is none.
    """

    scales: Scales | None = None
    rescale: float = 0.0
    interval: tuple[float, float] | None = None
    pag_scale: float = 0.0
    pag_layers: tuple[str, ...] = ("mid",)
    apg: Projection = Projection()
    perp_neg: float | None = None
    guide_scale: float | None = None

    def check(self) -> None:
        """Raises `SafelightError` for what no model could do."""
        if self.scales is not None:
            self.scales.check()
        if not 0 <= self.rescale <= 1:
            raise SafelightError(f"guidance_rescale should lie from 0 to 1, got {self.rescale}.")
        if self.interval is not None and not 0 <= self.interval[0] <= self.interval[1]:
            raise SafelightError(
                "guidance_interval should be two noise levels from 0 up, the lower first, got "
                f"{self.interval[0]:g},{self.interval[1]:g}."
            )
        _from_zero("pag_scale", self.pag_scale)
        for pattern in self.pag_layers:
            _check_pattern(pattern)
        if not self.pag_layers or (not self.pag_scale and self.pag_layers != PLAIN.pag_layers):
            raise SafelightError(
                "pag_layers go with a pag_scale above 0, and there is one or more."
            )
        self.apg.check()
        if self.perp_neg is not None:
            _from_zero("perp_neg", self.perp_neg)
        if self.guide_scale is not None and not 1 <= self.guide_scale < math.inf:
            raise SafelightError(
                f"guide_scale should be a finite number from 1 up, got {self.guide_scale}."
            )


PLAIN = Guidance()
"""Classifier-free guidance alone."""


def _from_zero(name: str, number: float) -> None:
    if not 0 <= number < math.inf:
        raise SafelightError(f"{name} should be a finite number from 0 up, got {number}.")


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise SafelightError(f"pag_layers: {pattern!r} is no pattern: {error}.") from error
