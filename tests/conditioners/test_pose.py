import colorsys

import numpy as np
import pytest

from safelight.conditioners.annotators.pose import (
    BODY,
    COLOURS,
    FINGERS,
    LIMBS,
    Keypoint,
    Person,
    body_of_coco,
    draw_pose,
)
from safelight.errors import SafelightError

cv2 = pytest.importorskip("cv2")

# OpenPose's COCO model: which of its 18 parts, counted from 1, each stick joins.
PUBLISHED_LIMBS = (
    *("2-3", "2-6", "3-4", "4-5", "6-7", "7-8", "2-9", "9-10", "10-11"),
    *("2-12", "12-13", "13-14", "2-1", "1-15", "15-17", "1-16", "16-18"),
)

JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")  # of COCO, after the face


def at(x: int, y: int) -> Keypoint:
    return Keypoint(float(x), float(y))


def only(**points: Keypoint) -> Person:
    names = {name.replace(" ", "_"): place for place, name in enumerate(BODY)}
    body: list[Keypoint | None] = [None] * 18
    for name, point in points.items():
        body[names[name]] = point
    return Person(tuple(body))


def test_limbs_and_colours_are_the_published_ones():
    assert tuple(f"{a + 1}-{b + 1}" for a, b in LIMBS) == PUBLISHED_LIMBS
    hues = [round(colorsys.rgb_to_hsv(*colour)[0] * 18) for colour in COLOURS]
    assert hues == list(range(18))
    assert {max(colour) for colour in COLOURS} == {255}
    assert {min(colour) for colour in COLOURS} == {0}
    assert [pair for pair in FINGERS if 0 in pair] == [(0, 4 * k + 1) for k in range(5)]


def test_a_stick_is_an_ellipse_under_its_joints():
    person = only(neck=at(20, 30), right_shoulder=at(60, 30))
    drawn = np.asarray(draw_pose([person], (80, 60)))
    expected = np.zeros((60, 80, 3), np.uint8)
    outline = cv2.ellipse2Poly((40, 30), (20, 4), 180, 0, 360, 1)
    cv2.fillConvexPoly(expected, outline, (153, 0, 0))
    cv2.circle(expected, (20, 30), 4, (255, 85, 0), thickness=-1)
    cv2.circle(expected, (60, 30), 4, (255, 170, 0), thickness=-1)
    assert (drawn == expected).all()


@pytest.mark.parametrize("limb", range(17))
def test_each_stick_has_its_colour(limb: int):
    body: list[Keypoint | None] = [None] * 18
    body[LIMBS[limb][0]], body[LIMBS[limb][1]] = at(10, 10), at(70, 40)
    drawn = np.asarray(draw_pose([Person(tuple(body))], (80, 60)))
    assert drawn[25, 40].tolist() == [int(0.6 * part) for part in COLOURS[limb]]


def test_hands_and_face():
    hand = tuple(at(5 + 2 * k, 10 + k) for k in range(21))
    face = tuple(at(60, k) for k in range(68))
    drawn = np.asarray(draw_pose([Person((None,) * 18, hand, (), face)], (80, 80)))
    assert drawn[40, 60].tolist() == [255, 255, 255]
    assert drawn[10, 5].tolist() == [0, 0, 255]
    bare = np.asarray(draw_pose([Person((None,) * 18, (), hand)], (80, 80)))
    assert drawn[:, :50].sum() == bare.sum() > 0


def test_everyone_is_drawn_where_they_are_and_nobody_leaves_black():
    one, other = only(nose=at(10, 10)), only(nose=at(40, 10))
    both = np.asarray(draw_pose([one, other], (60, 20), width=2))
    assert (
        both == sum(np.asarray(draw_pose([who], (60, 20), width=2)) for who in (one, other))
    ).all()
    assert not np.asarray(draw_pose([], (60, 20))).any()


def test_a_coco_body_keeps_its_sides_and_gains_a_neck():
    coco = (
        *("nose", "left eye", "right eye", "left ear", "right ear"),
        *(f"{side} {joint}" for joint in JOINTS for side in ("left", "right")),
    )
    points = {name: at(3 * place, place) for place, name in enumerate(coco)}
    body = body_of_coco(tuple(points[name] for name in coco))
    neck = Keypoint((15 + 18) / 2, (5 + 6) / 2)
    assert dict(zip(BODY, body, strict=True)) == {**points, "neck": neck}
    without = tuple(None if name == "left shoulder" else points[name] for name in coco)
    assert body_of_coco(without)[1] is None


def test_errors_name_the_counts():
    with pytest.raises(SafelightError, match="left_hand has 0 or 21 points, got 3"):
        Person((None,) * 18, (None,) * 3)
    with pytest.raises(SafelightError, match="17 points, got 18"):
        body_of_coco((None,) * 18)
    with pytest.raises(SafelightError, match="between 1 and 100"):
        draw_pose([], (8, 8), width=0)
