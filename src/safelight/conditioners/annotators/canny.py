"""Edges by Canny: the hint of ControlNet's first model."""

from dataclasses import dataclass

from PIL import Image

from safelight.conditioners.annotators.opencv import levels_of, opencv, picture_of
from safelight.errors import SafelightError


@dataclass(frozen=True)
class Canny:
    """White edges on black where the picture's levels change (Canny 1986), by OpenCV.

    An edge begins where the gradient passes `high` and goes on where it passes `low`. Of the three
    colours each pixel takes the one that changes most.

    Raises `SafelightError` for thresholds below 0 or out of order.
    """

    low: float = 100.0
    high: float = 200.0

    def __post_init__(self):
        if not 0 <= self.low <= self.high:
            raise SafelightError(
                f"canny takes thresholds 0 <= low <= high, got low={self.low}, high={self.high}."
            )

    def __call__(self, image: Image.Image) -> Image.Image:
        """The hint of an RGB picture, as large as it."""
        return picture_of(opencv().Canny(levels_of(image), self.low, self.high))
