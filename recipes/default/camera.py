"""The camera of a scene: where it stands, where points land, and how it is fitted."""

import math
from dataclasses import dataclass, replace

import numpy as np

PICTURE = 128
"""The side of every picture, in pixels."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along +y, tilted by `elevation` degrees (negative: downwards).

    `lookat` is the point in the picture's centre, `distance` away (metres); `fovy` in degrees.
    """

    lookat: tuple[float, float, float]
    distance: float
    elevation: float
    fovy: float

    @property
    def position(self) -> np.ndarray:
        """Where the camera stands, (3,) metres."""
        return np.array(self.lookat) - self.distance * self._axes()[2]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points (n, 3) land, (n, 2) in parts of the picture, y down; and depths (n,)."""
        right, up, forward = self._axes()
        offset = np.asarray(points) - self.position
        depth = offset @ forward
        reach = math.tan(math.radians(self.fovy) / 2)
        u = 0.5 + 0.5 * (offset @ right) / (depth * reach)
        v = 0.5 - 0.5 * (offset @ up) / (depth * reach)
        return np.stack([u, v], axis=1), depth

    def _axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tilt = math.radians(self.elevation)
        forward = np.array([0.0, math.cos(tilt), math.sin(tilt)])
        right = np.array([1.0, 0.0, 0.0])
        return right, np.cross(right, forward), forward


def fit(
    points: np.ndarray,
    elevation: float,
    fovy: float,
    fill: float,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Camera:
    """The camera for which the box around the points (n, 3) takes `fill` of the picture's side.

    The box's centre lands at the picture's centre plus `shift`, in parts (-1 to 1) of the free
    margin.
    """
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    reach = math.tan(math.radians(fovy) / 2)
    span = float(np.linalg.norm(points.max(axis=0) - points.min(axis=0)))
    camera = Camera(_tuple(centre), span / reach / fill, elevation, fovy)
    for _ in range(12):
        spots, _depth = camera.project(points)
        low, high = spots.min(axis=0), spots.max(axis=0)
        extent = float((high - low).max())
        margin = np.maximum(0, 1 - (high - low)) / 2
        wanted = 0.5 + margin * np.array(shift)
        miss = (low + high) / 2 - wanted
        right, up, _ = camera._axes()
        step = 2 * reach * camera.distance * (miss[0] * right - miss[1] * up)
        camera = replace(
            camera,
            lookat=_tuple(np.array(camera.lookat) + step),
            distance=camera.distance * extent / fill,
        )
    return camera


def _tuple(vector: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in vector)
    return (x, y, z)
