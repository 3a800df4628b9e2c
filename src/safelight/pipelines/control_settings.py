"""How a picture is to steer what is made, as a user asks for it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from safelight.errors import SafelightError

ControlMode = Literal["balanced", "guided", "guess", "prompt", "control"]
"""How a control shares the lead with the prompt: both halves of guidance are controlled alike; the
prompt's half alone, so that guidance exaggerates the hint as it does the prompt; the prompt's half
alone, by weights that rise from the finest layer to the middle, as diffusers' guess
mode; both, by softer weights, as the web UI's "My prompt is more important"; the prompt's half
alone by these, as its "ControlNet is more important".
"""

ControlResize = Literal["stretch", "crop", "fill", "nearest"]
"""How a picture comes to the size of what is made: drawn out; cut at two sides; with two sides
filled; or drawn out without colours between, for hints whose colours are names.
"""

ONE_SIDED: tuple[ControlMode, ...] = ("guided", "guess", "control")
"""The modes in which what guidance leads away from is not controlled."""

_MOST_WEIGHT = 100.0


@dataclass(frozen=True)
class Control:
    """A picture that steers what is made, by a ControlNet (Zhang et al. 2023, arXiv 2302.05543).

    Attributes:
        kind: of the control, such as "pose": a ControlNet that the model brings, or of `network`;
            and the annotator that makes its hint. Or the path of a ControlNet, for a hint.
        picture: a file, or a picture in memory.
        hint: whether it is a hint already, such as a drawn skeleton, and goes to the network as it
            is.
        annotator: the weights that make the hint, for a kind that is estimated by a network.
        network: a folder or file to take in the place of the model's own of that kind.
        weight: how strongly it steers.
        start: the part of the steps after which it begins, 0 to 1.
        end: the part of the steps with which it ends, likewise.
        mode: how it shares the lead with the prompt; None is as the model says that its controls
            are best used, else "balanced".
        weights: what it adds at each skip of the U-Net, and last in the middle, is multiplied by
            these beside `weight`; None leaves them to the mode.
        mask: a picture that is white where it works; None for everywhere.
        resize: how the picture comes to the size of what is made.
    """

    kind: str
    picture: str | Path | Image.Image
    hint: bool = False
    annotator: str | Path | None = None
    network: str | Path | None = None
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: ControlMode | None = None
    weights: tuple[float, ...] | None = None
    mask: str | Path | Image.Image | None = None
    resize: ControlResize = "stretch"

    def check(self) -> None:
        """Raises `SafelightError` for a number or a word that none can be."""
        for what, weight in (
            ("weight", self.weight),
            *(("each of weights", one) for one in self.weights or ()),
        ):
            if not (math.isfinite(weight) and abs(weight) <= _MOST_WEIGHT):
                raise SafelightError(
                    f"The {what} of control {self.kind} should lie between -{_MOST_WEIGHT:g} and "
                    f"{_MOST_WEIGHT:g}, got {weight}."
                )
        if not 0 <= self.start < self.end <= 1:
            raise SafelightError(
                f"The control {self.kind} should start before it ends, both between 0 and 1; got "
                f"{self.start} and {self.end}."
            )
        for name, value, known in (
            ("mode", self.mode, get_args(ControlMode)),
            ("resize", self.resize, get_args(ControlResize)),
        ):
            if value is not None and value not in known:
                raise SafelightError(
                    f"The {name} of control {self.kind} should be one of {', '.join(known)}; got "
                    f"{value!r}."
                )
