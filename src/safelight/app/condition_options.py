"""Conditions as a user asks for them on the command line."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from safelight.config import near
from safelight.errors import SafelightError

if TYPE_CHECKING:
    from safelight.pipelines.condition_settings import Condition
    from safelight.types import Box

_Texts = Annotated[tuple[str, ...], Parameter(negative=())]
_LAYOUT = "layout"
_BOX = 'layout="a red cube@0.1,0.2,0.5,0.6"'


@dataclass(frozen=True)
class ConditionOptions:
    """Options of `safelight generate`, each by its name.

    Parameters
    ----------
    condition
        What the model has learned to be told beside
        the prompt: KIND=VALUE, which is a class by its
        name (class=cat), a picture (depth=map.png,
        semantic=map.png, low_resolution=small.png), or
        a box, its edges as parts of the picture: left,
        top, right, bottom
        (layout="a cat@0.1,0.2,0.5,0.6"). Boxes add up;
        layout=boxes.json has them in a file.
    condition_scale
        KIND=NUMBER: guidance by this alone. [default: 1
        for pictures, else the prompt's]
    """

    condition: _Texts = ()
    condition_scale: _Texts = ()

    def conditions(self) -> "tuple[Condition, ...]":
        """As a request has them; `SafelightError` for a file that is not there, a kind that is not
        asked for, or what is no number or no box.
        """
        from safelight.pipelines.condition_settings import Condition
        from safelight.pipelines.find import expanded

        values: dict[str, str | Path] = {}
        boxes: list[Box] = []
        for text in self.condition:
            kind, equals, value = (part.strip() for part in text.partition("="))
            if not (kind and equals and value):
                raise SafelightError(f"--condition should be such as depth=map.png; got {text!r}.")
            if kind == _LAYOUT:
                boxes += _boxes_of(value)
            elif kind in values:
                raise SafelightError(f"The condition {kind} is given more than once.")
            else:
                path = expanded(value)
                values[kind] = path if path.is_file() else value
        kinds = [*values, *([_LAYOUT] if boxes else [])]
        scales = _scales(self.condition_scale, kinds)
        asked = [Condition(kind, value, scales.get(kind)) for kind, value in values.items()]
        if boxes:
            asked.append(Condition(_LAYOUT, tuple(boxes), scales.get(_LAYOUT)))
        return tuple(asked)


def _boxes_of(text: str) -> "list[Box]":
    """The boxes in a JSON file, as a training's metadata has them, or the one that is written."""
    from safelight.pipelines.find import expanded

    if text.endswith(".json"):
        path = expanded(text)
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SafelightError(f"{path} cannot be read as a list of boxes: {error}.") from error
        if not isinstance(rows, list):
            raise SafelightError(f"{path} should hold a list of boxes.")
        return [_box_of(row, str(path)) for row in cast(list[object], rows)]
    label, at, edges = text.rpartition("@")
    return [_box(label.strip(), edges.split(","), text) if at else _box(text, (), text)]


def _box_of(row: object, source: str) -> "Box":
    said = cast(Mapping[str, object], row if isinstance(row, Mapping) else {})
    if not said:
        raise SafelightError(f"{source}: a box should be a table with label and box; got {row}.")
    edges = said.get("box")
    numbers = cast(Sequence[object], edges) if isinstance(edges, list) else ()
    return _box(str(said.get("label", "")), [str(edge) for edge in numbers], str(row))


def _box(label: str, edges: Sequence[str], text: str) -> "Box":
    from safelight.types import Box

    try:
        left, top, right, bottom = map(float, edges)
    except ValueError as error:
        raise SafelightError(f"A box should be such as {_BOX}; got {text!r}.") from error
    return Box(label, (left, top, right, bottom))


def _scales(texts: Sequence[str], kinds: Sequence[str]) -> dict[str, float]:
    scales: dict[str, float] = {}
    for text in texts:
        kind, _, number = (part.strip() for part in text.partition("="))
        if kind not in kinds:
            known = near(kind, kinds) if kinds else "Give --condition KIND=VALUE too."
            raise SafelightError(f"--condition-scale {text!r} is for no condition. {known}")
        try:
            scales[kind] = float(number)
        except ValueError as error:
            raise SafelightError(
                f"--condition-scale should be such as depth=2; got {text!r}."
            ) from error
    return scales
