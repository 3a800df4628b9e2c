"""Conditions as a user asks for them on the command line."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from safelight.config import Value, near
from safelight.errors import SafelightError

if TYPE_CHECKING:
    from safelight.pipelines.condition_settings import Condition, ImagePrompt
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
    image_prompt
        A picture that speaks beside the prompt, by an
        IP-Adapter, and after a colon how loudly:
        dog.png:0.6. Give it several times for several.
    image_prompt_scale
        Guidance by these alone. [default: the prompt's]
    ip_adapter
        The IP-Adapter, where the model brings none: a
        file, or owner/name/file of the hub.
    image_encoder
        A folder with the image tower that it was
        trained with. [default: image_encoder beside it]
    """

    condition: _Texts = ()
    condition_scale: _Texts = ()
    image_prompt: _Texts = ()
    image_prompt_scale: float | None = None
    ip_adapter: str | None = None
    image_encoder: str | None = None

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

    def image_prompts(self) -> "tuple[ImagePrompt, ...]":
        """As a request has them; `SafelightError` for a file that is not there, or for options of
        image prompts without any.
        """
        others = (self.image_prompt_scale, self.ip_adapter, self.image_encoder)
        if not self.image_prompt and any(other is not None for other in others):
            raise SafelightError(
                "--ip-adapter, --image-encoder and --image-prompt-scale are of image prompts; give "
                "--image-prompt FILE too."
            )
        if self.image_encoder is not None and self.ip_adapter is None:
            raise SafelightError("--image-encoder is that of an --ip-adapter; give that too.")
        return tuple(_image_prompt(text) for text in self.image_prompt)


def _image_prompt(text: str) -> "ImagePrompt":
    """Of `FILE` or `FILE:WEIGHT`; a colon in a file's name is part of it if the file is there."""
    from safelight.pipelines.condition_settings import ImagePrompt
    from safelight.pipelines.find import expanded

    weight, file = 1.0, text
    name, colon, number = text.rpartition(":")
    if colon and not expanded(text).is_file():
        with suppress(ValueError):
            weight, file = float(number), name
    path = expanded(file)
    if not path.is_file():
        raise SafelightError(f"There is no picture {path}, which an image prompt names.")
    return ImagePrompt(path, weight)


def _boxes_of(text: str) -> "list[Box]":
    """The boxes in a JSON file, as a training's metadata has them, or the one that is written."""
    from safelight.conditioners.boxes import box_of
    from safelight.pipelines.find import expanded

    if text.endswith(".json"):
        path = expanded(text)
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SafelightError(f"{path} cannot be read as a list of boxes: {error}.") from error
        if not isinstance(rows, list):
            raise SafelightError(f"{path} should hold a list of boxes.")
        return [box_of(row, str(path)) for row in cast(list[Value], rows)]
    label, at, edges = text.rpartition("@")
    return [_box(label.strip(), edges.split(","), text) if at else _box(text, (), text)]


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
