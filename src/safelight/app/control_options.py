"""Controls as a user asks for them on the command line."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

from cyclopts import Parameter

from safelight.config import near
from safelight.errors import SafelightError

if TYPE_CHECKING:
    from safelight.pipelines.control_settings import Control

_Texts = Annotated[tuple[str, ...], Parameter(negative=())]


@dataclass(frozen=True)
class ControlOptions:
    """Options of `safelight generate`, each by its name. All but the first two hold for every
    control, or, as KIND=VALUE, for those of a kind.

    Parameters
    ----------
    control
        A picture that steers: KIND=FILE, and after
        a colon its weight: pose=figure.png:0.8.
        Give it several times for several. Of the
        picture a hint is made, as by safelight
        annotate.
    hint
        The pictures are hints already.
    control_net
        KIND=FOLDER or FILE of a ControlNet, where
        the model has none of the kind.
    control_annotator
        KIND=WEIGHTS, for hints that a network makes.
    control_weight
        How strongly it steers. [default: 1]
    control_start
        The part of the steps after which it begins.
        [default: 0]
    control_end
        The part of the steps with which it ends.
        [default: 1]
    control_mode
        balanced, guided, guess (also without a
        prompt), prompt or control (which leads).
        [default: the model's own, else balanced]
    control_mask
        A picture that is white where it works.
    control_resize
        How the picture comes to size: stretch, crop,
        fill or nearest. [default: stretch]
    """

    control: _Texts = ()
    hint: Annotated[bool, Parameter(negative=())] = False
    control_net: _Texts = ()
    control_annotator: _Texts = ()
    control_weight: _Texts = ()
    control_start: _Texts = ()
    control_end: _Texts = ()
    control_mode: _Texts = ()
    control_mask: _Texts = ()
    control_resize: _Texts = ()

    def controls(self) -> "tuple[Control, ...]":
        """As a request has them; `SafelightError` for a file that is not there, a kind that is not
        asked for, or what is no number.
        """
        from safelight.pipelines.control_settings import ControlMode, ControlResize

        asked = [_control(text, hint=self.hint) for text in self.control]
        kinds = [control.kind for control in asked]
        if not asked and self != ControlOptions():
            raise SafelightError("These options are of a control; give --control KIND=FILE too.")
        nets = _by_kind("net", self.control_net, kinds, named=True)
        annotators = _by_kind("annotator", self.control_annotator, kinds, named=True)
        weights = _numbers("weight", self.control_weight, kinds)
        starts = _numbers("start", self.control_start, kinds)
        ends = _numbers("end", self.control_end, kinds)
        modes = _words("mode", self.control_mode, kinds, get_args(ControlMode))
        masks = {
            kind: _there(text) for kind, text in _by_kind("mask", self.control_mask, kinds).items()
        }
        resizes = _words("resize", self.control_resize, kinds, get_args(ControlResize))
        return tuple(
            replace(
                control,
                network=nets.get(control.kind),
                annotator=annotators.get(control.kind),
                weight=weights.get(control.kind, control.weight),
                start=starts.get(control.kind, 0.0),
                end=ends.get(control.kind, 1.0),
                mode=cast("ControlMode | None", modes.get(control.kind)),
                mask=masks.get(control.kind),
                resize=cast(ControlResize, resizes.get(control.kind, "stretch")),
            )
            for control in asked
        )


def _control(text: str, *, hint: bool) -> "Control":
    """A control of `KIND=FILE` or `KIND=FILE:WEIGHT`; a colon in a file's name is part of it if
    the file is there, or what follows is no number.
    """
    from safelight.pipelines.control_settings import Control
    from safelight.pipelines.find import expanded

    kind, equals, file = text.partition("=")
    if not (equals and kind.strip() and file):
        raise SafelightError(f"--control should be such as pose=figure.png:0.8; got {text!r}.")
    weight = 1.0
    name, colon, number = file.rpartition(":")
    if colon and not expanded(file).is_file():
        with suppress(ValueError):
            weight, file = float(number), name
    return Control(kind.strip(), _there(file), hint=hint, weight=weight)


def _there(file: str) -> Path:
    from safelight.pipelines.find import expanded

    path = expanded(file)
    if not path.is_file():
        raise SafelightError(f"There is no picture {path}, which a control names.")
    return path


def _by_kind(
    option: str, texts: Sequence[str], kinds: Sequence[str], *, named: bool = False
) -> dict[str, str]:
    """What is said for each kind: by `KIND=VALUE`, else, unless it must be `named`, by a value."""
    every: dict[str, str] = {}
    own: dict[str, str] = {}
    for text in texts:
        kind, equals, value = text.partition("=")
        if equals and kind in kinds:
            own[kind] = value
        elif named or (equals and option != "mask"):
            raise SafelightError(
                f"--control-{option} {text!r} is for none of the controls. {near(kind, kinds)}"
            )
        else:
            every |= dict.fromkeys(kinds, text)
    return every | own


def _words(
    option: str, texts: Sequence[str], kinds: Sequence[str], known: Sequence[str]
) -> dict[str, str]:
    said = _by_kind(option, texts, kinds)
    for value in said.values():
        if value not in known:
            raise SafelightError(
                f"--control-{option} should be one of {', '.join(known)}; got {value!r}."
            )
    return said


def _numbers(option: str, texts: Sequence[str], kinds: Sequence[str]) -> dict[str, float]:
    said = _by_kind(option, texts, kinds)
    try:
        return {kind: float(value) for kind, value in said.items()}
    except ValueError as error:
        raise SafelightError(
            f"--control-{option} should be a number, got {', '.join(said.values())}."
        ) from error
