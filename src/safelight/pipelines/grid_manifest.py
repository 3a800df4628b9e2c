"""What made a grid of pictures."""

import json
from dataclasses import dataclass, field
from typing import cast

from safelight.config import Value, from_dict, to_dict
from safelight.errors import SafelightError
from safelight.pipelines.manifest import Manifest

_FORMAT = 1


@dataclass(frozen=True)
class GridManifest:
    """The labels of a grid, what made each of its cells, and a digest of the whole."""

    x: tuple[str, ...]  # labels above the columns
    y: tuple[str, ...]  # before the rows
    cells: tuple[Manifest, ...]  # row by row from the top
    pixels: str  # SHA-256 of the RGB bytes of the grid, rows from the top
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    grid: int = _FORMAT

    def to_json(self) -> str:
        """The manifest as JSON, one key a line."""
        return json.dumps(to_dict(self), indent=2, ensure_ascii=False)

    @staticmethod
    def from_json(text: str, source: str) -> "GridManifest | None":
        """Reads `to_json`'s text; None for that of a single picture, or no JSON at all.

        Raises `SafelightError` if it is a grid's and damaged; `source` names the file.
        """
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            return None
        if not isinstance(values, dict) or "cells" not in values:
            return None
        try:
            manifest = from_dict(GridManifest, cast(dict[str, Value], values))
        except SafelightError as error:
            raise SafelightError(f"{source} holds a damaged manifest: {error}") from error
        if manifest.grid != _FORMAT or len(manifest.cells) != len(manifest.x) * len(manifest.y):
            raise SafelightError(
                f"{source} holds a damaged manifest: {len(manifest.cells)} cells do not make "
                f"{len(manifest.x)} columns and {len(manifest.y)} rows."
            )
        return manifest
