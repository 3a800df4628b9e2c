import random
from dataclasses import replace

import numpy as np
import pytest
from boxes import find_boxes
from camera import PICTURE, fit
from held_out import read
from people import KEYPOINTS, draw_person
from solids import COLOURS, Look, Solid

staging = pytest.importorskip("stage", exc_type=ImportError)  # needs mujoco and OSMesa
LOOK = Look("grey", 1.07, light_azimuth=20, light_elevation=55, light=0.6, ambient=0.4)


@pytest.fixture(scope="module")
def stage():
    stage = staging.Stage()
    yield stage
    stage.close()


def test_the_picture_shows_what_the_truth_says(stage):
    solids = [
        Solid("red", "cube", "big", -0.7, 0.0, 20),
        Solid("blue", "ball", "big", 0.7, 0.0, 0),
    ]
    points, _ = stage.place(solids, None, LOOK)
    camera = fit(points, elevation=-25, fovy=40, fill=0.9)
    render = stage.render(camera)
    boxes = find_boxes(render.ids)
    assert set(boxes) == {1, 2}
    for identity, solid in enumerate(solids, start=1):
        spots, depths = camera.project(solid.corners().mean(axis=0, keepdims=True))
        left, top, right, bottom = boxes[identity]
        np.testing.assert_allclose(
            ((left + right) / 2, (top + bottom) / 2), spots[0] * PICTURE, atol=4
        )
        column, row = (spots[0] * PICTURE).astype(int)
        assert depths[0] - 0.8 < render.depth[row, column] < depths[0] - 0.3
        mean = render.rgb[render.ids == identity].mean(axis=0)
        assert mean.argmax() == np.argmax(COLOURS[solid.colour])
    assert boxes[1][2] <= boxes[2][0]


def test_key_points_lie_on_the_person(stage):
    person = draw_person(random.Random(4), COLOURS)
    points, keypoints = stage.place([], person, LOOK)
    camera = fit(points, elevation=-12, fovy=40, fill=0.9)
    render = stage.render(camera)
    spots = (camera.project(keypoints)[0] * PICTURE).astype(int)
    assert len(spots) == len(KEYPOINTS) == 18
    on_person = [render.ids[row, column] == 1 for column, row in spots]
    assert all(on_person)
    assert spots[KEYPOINTS.index("nose")][1] < spots[KEYPOINTS.index("left_ankle")][1]


def test_the_persons_left_is_on_the_right_when_it_faces_us(stage):
    person = replace(draw_person(random.Random(4), COLOURS), yaw=0.0)
    points, keypoints = stage.place([], person, LOOK)
    spots, _ = fit(points, elevation=-12, fovy=40, fill=0.9).project(keypoints)
    at = dict(zip(KEYPOINTS, spots, strict=True))
    assert at["left_shoulder"][0] > at["right_shoulder"][0]
    assert at["left_hip"][0] > at["right_hip"][0]


def test_hiding_the_others_uncovers_a_solid(stage):
    solids = [
        Solid("red", "cube", "big", 0.0, -0.6, 0),
        Solid("blue", "ball", "small", 0.0, 0.6, 0),
    ]
    points, _ = stage.place(solids, None, LOOK)
    camera = fit(points, elevation=-10, fovy=40, fill=0.8)
    covered = (stage.segment(camera) == 2).sum()
    whole = stage.segment(camera, only=2)
    assert (whole == 2).sum() > 2 * covered
    assert not (whole == 1).any()
    assert (stage.segment(camera) == 1).any()


def test_a_picture_is_a_function_of_split_and_number(stage):
    from scenes import draw

    held_out = read().colour_shape
    first = draw(stage, "train", 7, held_out)
    draw(stage, "held_out_pairs", 1, held_out)
    again = draw(stage, "train", 7, held_out)
    assert first.scene == again.scene
    np.testing.assert_array_equal(first.render.rgb, again.render.rgb)
    np.testing.assert_array_equal(first.render.ids, again.render.ids)
