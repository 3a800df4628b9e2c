"""A job that is a grid: one picture for each value of its axes, or each pair of values."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from safelight.app.axes import WORDS, Axis, axis_of, replaced
from safelight.app.grid_making import joined
from safelight.app.server.asked import Asked, in_one_line
from safelight.app.server.records import Picture
from safelight.errors import SafelightError
from safelight.pipelines.generated import GeneratedImage
from safelight.pipelines.manifest import Manifest
from safelight.pipelines.picture_files import Texts, encode_with_texts

_NUMBERS = (
    *("scale", "steps", "seed", "subseed", "subseed-strength", "width", "height"),
    *("strength", "image-scale", "image-prompt-scale", "noise-level", "mask-blur", "clip-skip"),
)
AXES = (*_NUMBERS, "sampler", "schedule", "prompt", "negative", "rng", WORDS)
"""What may differ along an axis."""


def axes_of(asked: Asked) -> tuple[Axis, ...]:
    """The axis of the columns, and that of the rows if there is one; none for what is no grid.

    Raises `SafelightError` for an axis that cannot be, or goes with nothing.
    """
    if asked.x is None:
        if asked.y is not None:
            raise SafelightError("A grid's rows (y) want columns (x) too.")
        return ()
    if asked.count != 1:
        raise SafelightError("A grid has one picture a cell; leave count out.")
    axes = [axis_of(text, AXES, _NUMBERS) for text in (asked.x, asked.y) if text is not None]
    if len({axis.name for axis in axes}) < len(axes):
        raise SafelightError(f"Both axes vary {axes[0].name}; give two.")
    return tuple(axes)


def count_of(asked: Asked) -> int:
    """How many pictures are asked for; errors as `axes_of`."""
    axes, count = axes_of(asked), 1
    for axis in axes:
        count *= len(axis.values)
    return count if axes else asked.count


def cells_of(asked: Asked) -> list[Asked]:
    """What each cell asks for, row by row; the job itself where it is no grid.

    Raises `SafelightError` for a value that cannot be.
    """
    axes = axes_of(asked)
    if not axes:
        return [asked]
    alone = asked.model_copy(update={"x": None, "y": None})
    return [_cell(alone, varied) for varied in _varied(axes)]


def grid_of(asked: Asked, pictures: Sequence[Picture]) -> bytes:
    """The pictures of a grid in one, under their labels, as a PNG with what made it inside."""
    columns, *rows = axes_of(asked)
    made = [
        GeneratedImage(
            Image.open(io.BytesIO(picture.content)).convert("RGB"),
            Manifest.from_json(picture.manifest, "The picture"),
        )
        for picture in pictures
    ]
    x = [columns.label(value) for value in columns.values]
    y = [rows[0].label(value) for value in rows[0].values] if rows else [""]
    grid = joined(made, x, y, {axis.name: axis.values for axis in (columns, *rows)})
    return encode_with_texts(Path("grid.png"), grid.image, Texts(grid.manifest.to_json()))


def _varied(axes: Sequence[Axis]) -> Iterator[list[tuple[Axis, str]]]:
    columns, *rows = axes
    for before in [[(axis, value)] for axis in rows for value in axis.values] or [[]]:
        for value in columns.values:
            yield [*before, (columns, value)]


def _cell(asked: Asked, varied: Sequence[tuple[Axis, str]]) -> Asked:
    with in_one_line():
        for axis, value in varied:
            if axis.name != WORDS:
                name = axis.name.replace("-", "_")
                asked = Asked.model_validate({**asked.model_dump(), name: value})
    for axis, value in varied:
        if axis.name == WORDS:
            prompt, negative = replaced(axis, value, (asked.prompt, asked.negative))
            asked = asked.model_copy(update={"prompt": prompt, "negative": negative})
    return asked
