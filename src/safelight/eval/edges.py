"""How near the edges of one picture lie to those of another."""

import math
from typing import cast

import numpy as np
from jaxtyping import Bool

Edges = Bool[np.ndarray, "h w"]


def edge_f1(made: Edges, wanted: Edges, tolerance: float = 2.0) -> float:
    """The harmonic mean of precision and recall of edge pixels, of which one counts where the other
    picture has one within `tolerance` pixels (Martin et al. 2004, section 4, without matching one
    to one). Without any wanted edge it is nan.
    """
    if not wanted.any():
        return math.nan
    if not made.any():
        return 0.0
    precision = float((_distance(wanted)[made] <= tolerance).mean())
    recall = float((_distance(made)[wanted] <= tolerance).mean())
    return 2 * precision * recall / max(precision + recall, 1e-9)


def _distance(edges: Edges) -> np.ndarray:
    """How far each pixel is from the nearest edge."""
    from scipy import ndimage

    return cast(np.ndarray, ndimage.distance_transform_edt(~edges))
