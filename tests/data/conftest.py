"""Small picture folders to read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakePictures = Callable[..., Path]


@pytest.fixture
def make_pictures(tmp_path: Path) -> MakePictures:
    """Writes `count` PNG pictures that differ from one another, and gives their folder."""

    def make(
        count: int = 5, size: tuple[int, int] = (24, 24), mode: str = "RGB", name: str = "pictures"
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        levels = np.random.default_rng(0)
        for i in range(count):
            rows = levels.integers(0, 256, (size[1], size[0], len(mode)), dtype=np.uint8)
            Image.fromarray(rows, mode).save(folder / f"thing {i:03}.png")
        return folder

    return make
