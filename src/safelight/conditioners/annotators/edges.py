"""Soft edges and scribbles from what an edge network estimates."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from PIL import Image

from safelight.conditioners.annotators.opencv import opencv, picture_of

Edges = Float32[np.ndarray, "h w"]
"""How surely each pixel is an edge, 0 to 1."""


@dataclass(frozen=True)
class SoftEdges:
    """Edges as bright as they are sure, white on black: ControlNet's `softedge_hed`.

    With `safe` they have three levels alone, which hides what else the network let through of the
    picture: `softedge_hedsafe`.
    """

    safe: bool = False

    def __call__(self, edges: Edges) -> Image.Image:
        """The hint of an estimate."""
        if self.safe:
            edges = (edges * 3).astype(np.int32).astype(np.float32) / 2
        return picture_of((edges * 255).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class ScribbleHed:
    """Edges thinned to their ridges and drawn by a thick pen: ControlNet's `scribble_hed`."""

    def __call__(self, edges: Edges) -> Image.Image:
        """The hint of an estimate."""
        blur = opencv().GaussianBlur
        levels = (edges * 255).clip(0, 255).astype(np.uint8).astype(np.float32)
        strokes = np.where(_ridges(blur(levels, (0, 0), 3.0)) > 127, 255, 0).astype(np.uint8)
        thick = blur(strokes, (0, 0), 3.0) > 4
        return picture_of(np.where(thick, 255, 0).astype(np.uint8))


def _ridges(levels: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """The levels that no neighbour exceeds along one of four lines; 0 elsewhere."""
    dilate, flat = opencv().dilate, np.zeros((3, 3), np.uint8)
    across, down = flat.copy(), flat.copy()
    across[1], down[:, 1] = 1, 1
    falling = np.eye(3, dtype=np.uint8)
    lines = (across, down, falling, np.ascontiguousarray(falling[::-1]))
    highest = np.any([dilate(levels, line) == levels for line in lines], axis=0)
    return np.where(highest, levels, np.float32(0))
