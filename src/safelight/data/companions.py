"""A second picture for each of a training: what a ControlNet is shown, and the like."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from safelight.data.buckets import View, cut
from safelight.data.config import DataConfig
from safelight.data.folders import PictureFolder
from safelight.data.memory import Kept
from safelight.errors import SafelightError
from safelight.pictures import Levels, Size, decode

Annotate = Callable[[Levels], Levels]
"""Makes of a picture one of the same size, both (h, w, 3)."""


class Companions:
    """One picture for each view of a picture, cut as that is, so that they lie on each other.

    It is what `annotate` makes of the view; or the file that the picture's row names in `column`,
    relative to the metadata, in which case `annotate` is None. They stay in memory up to
    `config.cache_bytes`. Several threads may ask.

    Raises `SafelightError` if a picture has no such file.
    """

    def __init__(
        self,
        pictures: PictureFolder,
        config: DataConfig,
        *,
        annotate: Annotate | None = None,
        column: str = "",
    ):
        self._pictures = pictures
        self._colours = config.colours
        self._annotate = annotate
        self._files = [] if annotate is not None else _files(pictures, column)
        self._kept = Kept[tuple[int, Size, bool, int], Levels](config.cache_bytes)

    def of(self, item: int, bucket: Size, flip: bool, background: int) -> Levels:
        """That of a picture by its index, mirrored or not, over a background by its index."""
        key = (item, bucket, flip, background)
        return self._kept.get(key, lambda: self._make(*key))

    def _make(self, item: int, bucket: Size, flip: bool, background: int) -> Levels:
        path = self._files[item] if self._files else self._pictures.items[item].path
        ground = self._colours[background]
        view = cut(np.array(decode(path, bucket)), bucket, View(flip=flip), ground)
        return np.ascontiguousarray(view if self._annotate is None else self._annotate(view))


def _files(pictures: PictureFolder, column: str) -> list[Path]:
    files: list[Path] = []
    for item in pictures.items:
        name = item.extras.get(column)
        if not isinstance(name, str):
            raise SafelightError(
                f"{item.path} has no {column!r} in its metadata; expected the path of a picture, "
                "relative to the metadata file."
            )
        path = Path(os.path.normpath(item.folder / name))
        if not path.is_file():
            raise SafelightError(f"No file {path}, which the metadata of {item.path} names.")
        files.append(path)
    return files
