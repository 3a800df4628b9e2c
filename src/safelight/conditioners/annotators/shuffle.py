"""A picture's colours in another order of places: the hint of ControlNet shuffle."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from safelight.conditioners.annotators.opencv import levels_of, opencv, picture_of
from safelight.errors import SafelightError


@dataclass(frozen=True)
class Shuffle:
    """The picture drawn through a smooth random flow, which keeps its colours and textures and
    loses where they were (Zhang's content shuffle, ControlNet 1.1).

    The flow is drawn from `seed` on a grid of `cell` pixels, so that one seed gives one hint.

    Raises `SafelightError` for a seed below 0 or a cell without pixels.
    """

    seed: int = 0
    cell: int = 256

    def __post_init__(self):
        if self.seed < 0 or not 1 <= self.cell <= 4096:
            raise SafelightError(
                "shuffle takes a seed of 0 or more and a cell of 1 to 4096 pixels, got "
                f"seed={self.seed}, cell={self.cell}."
            )

    def __call__(self, image: Image.Image) -> Image.Image:
        """The hint of an RGB picture, as large as it."""
        cv2, levels = opencv(), levels_of(image)
        height, width = levels.shape[:2]
        draws = np.random.default_rng(self.seed)
        across = self._places(height, width, draws) * (width - 1)
        down = self._places(height, width, draws) * (height - 1)
        return picture_of(cv2.remap(levels, across, down, cv2.INTER_LINEAR))

    def _places(
        self, height: int, width: int, draws: np.random.Generator
    ) -> Float[np.ndarray, "h w"]:
        """A smooth field from 0 to 1: noise on a grid, enlarged by cubics, a cell cut all round."""
        cv2, cell = opencv(), self.cell
        grid = draws.random((height // cell + 2, width // cell + 2))
        field = cv2.resize(
            grid, (width + 2 * cell, height + 2 * cell), interpolation=cv2.INTER_CUBIC
        )[cell : cell + height, cell : cell + width]
        field = field - field.min()
        return (field / max(field.max(), np.finfo(np.float64).tiny)).astype(np.float32)
