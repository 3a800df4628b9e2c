"""Sticks from what a pose network estimates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from safelight.conditioners.annotators.pose import Keypoint, Person, body_of_coco, draw_pose
from safelight.conditioners.annotators.whole_body import WholeBody, whole_person
from safelight.errors import SafelightError
from safelight.pictures import Size


@dataclass(frozen=True)
class PoseSticks:
    """People drawn by `draw_pose`, without the joints that are less sure than `threshold`.

    `width` is as of `draw_pose`. `hands` and `face` leave these out, where the network finds them.
    Raises `SafelightError` for a threshold outside 0 to 1.
    """

    threshold: float = 0.3
    width: int = 4
    hands: bool = True
    face: bool = True

    def __post_init__(self):
        if not 0 <= self.threshold <= 1:
            raise SafelightError(f"threshold should lie between 0 and 1, got {self.threshold}.")

    def __call__(
        self, places: Float[np.ndarray, "17 2"], surety: Float[np.ndarray, "17"], size: Size
    ) -> Image.Image:
        """The hint of one person: COCO's 17 joints in pixels, and how sure each is, 0 to 1."""
        points = tuple(
            Keypoint(float(x), float(y)) if sure >= self.threshold else None
            for (x, y), sure in zip(places, surety, strict=True)
        )
        return draw_pose([Person(body_of_coco(points))], size, self.width)

    def whole(self, found: Sequence[WholeBody], size: Size) -> Image.Image:
        """The hint of people found with feet, face and hands."""
        people = [
            whole_person(places, surety, self.threshold, hands=self.hands, face=self.face)
            for places, surety in found
        ]
        return draw_pose(people, size, self.width)
