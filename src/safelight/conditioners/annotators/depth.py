"""Depth, and the normals of its surface, as pictures: hints from what a depth network estimates."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from safelight.conditioners.annotators.opencv import opencv, picture_of
from safelight.errors import SafelightError

Disparity = Float[np.ndarray, "h w"]
"""How near each pixel is, in any unit: one over its distance, as MiDaS estimates it."""


@dataclass(frozen=True)
class DepthMap:
    """Near white, far black, whatever the range (Ranftl et al. 2020)."""

    def __call__(self, disparity: Disparity) -> Image.Image:
        """The hint of an estimate; black where nothing is nearer than anything else."""
        return picture_of((_from_0_to_1(disparity) * 255).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class NormalMap:
    """A surface's normals from the gradients of its disparity, as red, green and blue: Zhang's
    `normal_midas` (ControlNet 1.0).

    What lies farther than `background`, 0 far to 1 near, faces the viewer. `strength` multiplies
    the gradients; 1 is right for MiDaS' units, and networks of a smaller range take more.

    Raises `SafelightError` for another background, or a strength of 0 or less.
    """

    background: float = 0.4
    strength: float = 1.0

    def __post_init__(self):
        if not 0 <= self.background <= 1 or not 0 < self.strength < math.inf:
            raise SafelightError(
                "normal takes a background from 0 to 1 and a strength above 0, got "
                f"background={self.background}, strength={self.strength}."
            )

    def __call__(self, disparity: Disparity) -> Image.Image:
        """The hint of an estimate."""
        cv2, heights = opencv(), disparity.astype(np.float32) * np.float32(self.strength)
        far = _from_0_to_1(disparity) < self.background
        x, y = (
            np.where(far, 0, cv2.Sobel(heights, cv2.CV_32F, *axis, ksize=3))
            for axis in ((1, 0), (0, 1))
        )
        normals = np.stack([x, y, np.full_like(x, 2 * math.pi)], axis=2)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        return picture_of((normals * 127.5 + 127.5).clip(0, 255).astype(np.uint8))


def _from_0_to_1(disparity: Disparity) -> Disparity:
    above = disparity - disparity.min()
    return above / max(float(above.max()), np.finfo(np.float32).tiny)
