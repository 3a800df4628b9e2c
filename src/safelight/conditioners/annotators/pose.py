"""People as coloured sticks: the hint of ControlNet openpose, drawn from points."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from safelight.conditioners.annotators.opencv import opencv, picture_of
from safelight.errors import SafelightError
from safelight.pictures import Colour, Size


@dataclass(frozen=True)
class Keypoint:
    """A joint's place in pixels, from the left and from the top."""

    x: float
    y: float


Points = tuple[Keypoint | None, ...]
"""Joints in a known order; None where one is not seen."""

BODY = (
    *("nose", "neck", "right shoulder", "right elbow", "right wrist"),
    *("left shoulder", "left elbow", "left wrist", "right hip", "right knee", "right ankle"),
    *("left hip", "left knee", "left ankle", "right eye", "left eye", "right ear", "left ear"),
)
"""OpenPose's 18 joints of a body, in its order; right is the person's right."""


@dataclass(frozen=True)
class Person:
    """One person's joints: 18 of the body as in `BODY`, and none or all of the others.

    A hand has 21: the wrist, then four of each finger from the thumb on, from the palm out. A face
    has 68 or 70, as OpenPose counts them.

    Raises `SafelightError` for another number.
    """

    body: Points
    left_hand: Points = ()
    right_hand: Points = ()
    face: Points = ()

    def __post_init__(self):
        allowed = {"body": (18,), "left_hand": (0, 21), "right_hand": (0, 21), "face": (0, 68, 70)}
        for part, counts in allowed.items():
            given = len(getattr(self, part))
            if given not in counts:
                expected = " or ".join(map(str, counts))
                raise SafelightError(f"A pose's {part} has {expected} points, got {given}.")


LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
"""Pairs of places in `BODY` that a stick joins, in the order of their colours."""

COLOURS: tuple[Colour, ...] = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
"""Of the joints of `BODY`, and of the sticks `LIMBS`, which are drawn at 60%."""

FINGERS = tuple(
    limb for finger in range(5) for limb in pairwise((0, *range(4 * finger + 1, 4 * finger + 5)))
)
"""Pairs of a hand's points that a line joins, in the order of their hues."""


def draw_pose(people: Sequence[Person], size: Size, width: int = 4) -> Image.Image:
    """People on black as OpenPose's ControlNets were trained on them (Cao et al. 2019, drawn by
    Zhang): sticks that are ellipses, over them joints, hands and white dots of the face.

    `size` is in pixels. `width` is a stick's half width and a joint's radius in pixels: 4 is what
    the published models know at 512 pixels; smaller pictures take less.

    Raises `SafelightError` for a width below 1 or above 100, or without OpenCV.
    """
    if not 1 <= width <= 100:
        raise SafelightError(f"width should lie between 1 and 100 pixels, got {width}.")
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    for person in people:
        _draw_body(canvas, person.body, width)
    for person in people:
        for hand in (person.left_hand, person.right_hand):
            _draw_hand(canvas, hand, width)
        for point in person.face:
            _dot(canvas, point, (255, 255, 255), max(1, width * 3 // 4))
    return picture_of(canvas)


_COCO = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)  # places, of `BODY`


def body_of_coco(points: Points) -> Points:
    """OpenPose's 18 joints from COCO's 17 (nose, eyes, ears, shoulders, elbows, wrists, hips,
    knees, ankles, left before right): the neck is the middle of the shoulders.

    Raises `SafelightError` for another number.
    """
    if len(points) != 17:
        raise SafelightError(f"COCO's body has 17 points, got {len(points)}.")
    left, right = points[5], points[6]
    neck = left and right and Keypoint((left.x + right.x) / 2, (left.y + right.y) / 2)
    return tuple(neck if place is None else points[place] for place in _COCO)


def _draw_body(canvas: np.ndarray, body: Points, width: int) -> None:
    cv2 = opencv()
    for (first, last), colour in zip(LIMBS, COLOURS, strict=False):  # one joint more than sticks
        a, b = body[first], body[last]
        if a is None or b is None:
            continue
        middle = (int((a.x + b.x) / 2), int((a.y + b.y) / 2))
        half = int(math.hypot(a.x - b.x, a.y - b.y) / 2)
        angle = int(math.degrees(math.atan2(a.y - b.y, a.x - b.x)))
        outline = cv2.ellipse2Poly(middle, (half, width), angle, 0, 360, 1)
        cv2.fillConvexPoly(canvas, outline, [int(0.6 * part) for part in colour])
    for point, colour in zip(body, COLOURS, strict=True):
        _dot(canvas, point, colour, width)


def _draw_hand(canvas: np.ndarray, hand: Points, width: int) -> None:
    if not hand:
        return
    for place, (first, last) in enumerate(FINGERS):
        a, b = hand[first], hand[last]
        if a is not None and b is not None:
            hue = colorsys.hsv_to_rgb(place / len(FINGERS), 1, 1)
            colour = [255 * part for part in hue]
            ends = (int(a.x), int(a.y)), (int(b.x), int(b.y))
            opencv().line(canvas, *ends, colour, thickness=max(1, width // 2))
    for point in hand:
        _dot(canvas, point, (0, 0, 255), width)


def _dot(canvas: np.ndarray, point: Keypoint | None, colour: Colour, radius: int) -> None:
    if point is not None:
        opencv().circle(canvas, (int(point.x), int(point.y)), radius, colour, thickness=-1)
