"""The words of a scene: colours, shapes, sizes and floors, and a solid made of them.

Axes: x to the right of the picture, y away from the camera, z up; metres.
"""

from dataclasses import dataclass

import numpy as np

COLOURS = {
    "red": (0.85, 0.07, 0.07),
    "orange": (1.0, 0.45, 0.02),
    "yellow": (1.0, 0.87, 0.05),
    "green": (0.08, 0.6, 0.13),
    "blue": (0.07, 0.2, 0.85),
    "purple": (0.48, 0.1, 0.68),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.06),
}
SHAPES = ("cube", "ball", "cylinder", "cone", "pyramid", "ring")
SIZES = {"big": 1.0, "medium": 1.0, "small": 0.55}
"""A single solid is "medium" where it fills the picture neither much nor little."""

FLOORS = {
    "grey": (0.55, 0.56, 0.58),
    "beige": (0.74, 0.65, 0.53),
    "pale blue": (0.5, 0.63, 0.76),
    "pale green": (0.55, 0.68, 0.54),
    "pink": (0.8, 0.6, 0.62),
}
"""Floor and wall are duller than every object, and neither white nor black."""


@dataclass(frozen=True)
class Solid:
    """One solid by the names of its colour, shape and size, its place and its yaw in degrees."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    yaw: float

    def corners(self) -> np.ndarray:
        """The corners of the box around it, (8, 3) metres."""
        half, height = extent(self.shape, self.size)
        return np.array(
            [
                (self.x + dx * half, self.y + dy * half, z)
                for dx in (-1, 1)
                for dy in (-1, 1)
                for z in (0.0, height)
            ]
        )


@dataclass(frozen=True)
class Look:
    """The room: its floor, and the light's direction in degrees and its strength."""

    floor: str
    wall_shade: float
    light_azimuth: float
    light_elevation: float
    light: float
    ambient: float


def extent(shape: str, size: str) -> tuple[float, float]:
    """Half the width and the whole height of a solid, in metres."""
    half, height = {
        "cube": (0.52, 0.84),
        "ball": (0.5, 1.0),
        "cylinder": (0.4, 1.0),
        "cone": (0.52, 1.1),
        "pyramid": (0.6, 0.95),
        "ring": (0.55, 1.1),
    }[shape]
    return half * SIZES[size], height * SIZES[size]
