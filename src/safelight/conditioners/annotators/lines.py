"""Lines by differences of Gaussians: scribble and lineart without weights."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from PIL import Image

from safelight.conditioners.annotators.opencv import levels_of, opencv, picture_of
from safelight.errors import SafelightError


@dataclass(frozen=True)
class ScribbleXDoG:
    """Bold white strokes on black where the picture is darker than what lies around it, as the
    preprocessor `scribble_xdog` of AUTOMATIC1111's ControlNet extension (after XDoG, Winnemöller
    et al. 2012).

    A stroke is where every colour is darker than its surroundings by more than half the
    `threshold`, 1 to 64 levels.

    Raises `SafelightError` for another threshold.
    """

    threshold: float = 32.0

    def __post_init__(self):
        if not 1 <= self.threshold <= 64:
            raise SafelightError(f"threshold should lie between 1 and 64, got {self.threshold}.")

    def __call__(self, image: Image.Image) -> Image.Image:
        """The hint of an RGB picture, as large as it."""
        blur, levels = opencv().GaussianBlur, levels_of(image).astype(np.float32)
        fine, coarse = blur(levels, (0, 0), 0.5), blur(levels, (0, 0), 5.0)
        # Whole levels are compared, so that strokes are the preprocessor's to the pixel.
        lighter = (255 - np.min(coarse - fine, axis=2)).clip(0, 255).astype(np.uint8)
        stroke = 2 * (255 - lighter.astype(np.float32)) > self.threshold
        return picture_of(np.where(stroke, 255, 0).astype(np.uint8))


@dataclass(frozen=True)
class LineartStandard:
    """Soft white lines on black where the picture is darker than what lies around it, as the
    preprocessor `lineart_standard` of AUTOMATIC1111's ControlNet extension.

    `sigma` is the width in pixels of what lies around. Lines are brought to one brightness: the
    median line is half white.
    """

    sigma: float = 6.0

    def __post_init__(self):
        if not 0 < self.sigma <= 100:
            raise SafelightError(f"sigma should lie above 0, up to 100, got {self.sigma}.")

    def __call__(self, image: Image.Image) -> Image.Image:
        """The hint of an RGB picture, as large as it."""
        levels = levels_of(image).astype(np.float32)
        around = opencv().GaussianBlur(levels, (0, 0), self.sigma)
        darkness = np.min(around - levels, axis=2).clip(0, 255)
        lines = darkness / _median_line(darkness) * 127
        return picture_of(lines.clip(0, 255).astype(np.uint8))


_FAINTEST = 8  # levels darker than its surroundings that make a pixel part of a line
_LEAST_MEDIAN = 16.0  # so that the grain of a flat picture is not brought up


def _median_line(darkness: Float32[np.ndarray, "h w"]) -> float:
    lines = darkness[darkness > _FAINTEST]
    return max(_LEAST_MEDIAN, float(np.median(lines))) if lines.size else _LEAST_MEDIAN
