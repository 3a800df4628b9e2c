"""Boxes as files hold them."""

from collections.abc import Mapping, Sequence
from typing import cast

from safelight.config import Value
from safelight.errors import SafelightError
from safelight.types import Box


def box_of(row: Value, of: str) -> Box:
    """The box in a row of plain values; `SafelightError`, which begins with `of`, if it is none."""
    label = row.get("label") if isinstance(row, Mapping) else None
    edges = row.get("box") if isinstance(row, Mapping) else None
    numbers = isinstance(edges, Sequence) and all(isinstance(e, (int, float)) for e in edges)
    if not isinstance(label, str) or not numbers or len(cast(Sequence[float], edges)) != 4:
        raise SafelightError(
            f"{of}: a box should have a label and a box of four numbers, such as "
            f'{{"label": "a cube", "box": [0.1, 0.2, 0.5, 0.6]}}; got {row!r}.'
        )
    left, top, right, bottom = (float(edge) for edge in cast(Sequence[float], edges))
    try:
        return Box(label, (left, top, right, bottom))
    except SafelightError as error:
        raise SafelightError(f"{of}: {error}") from error
