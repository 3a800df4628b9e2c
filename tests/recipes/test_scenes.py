import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scene_captions
from boxes import find_boxes, relation_holds
from camera import Camera, fit
from held_out import SEED, draw_pairs, read
from scene_layout import Scene, draw_scene
from solids import COLOURS, SHAPES, Solid

RECIPE = Path(scene_captions.__file__).parent
HELD_OUT = read().colour_shape


@dataclass(frozen=True)
class Thing:
    colour: str
    shape: str
    size: str


def _scenes(count: int, only_held_out: bool = False) -> list[Scene]:
    return [draw_scene(random.Random(i), HELD_OUT, only_held_out) for i in range(count)]


def _pairs(scene: Scene) -> set[tuple[str, str]]:
    return {(solid.colour, solid.shape) for solid in scene.solids}


def test_the_list_is_what_its_seed_draws():
    assert sorted(HELD_OUT) == draw_pairs(list(COLOURS), list(SHAPES), SEED)
    assert {shape for _, shape in HELD_OUT} == set(SHAPES)
    assert len({colour for colour, _ in HELD_OUT}) == len(HELD_OUT)


def test_training_sees_every_pair_but_the_held_out_ones():
    seen = set().union(*map(_pairs, _scenes(1500)))
    assert seen == {(colour, shape) for colour in COLOURS for shape in SHAPES} - HELD_OUT


def test_held_out_scenes_each_show_a_held_out_pair():
    scenes = _scenes(300, only_held_out=True)
    assert all(_pairs(scene) & HELD_OUT for scene in scenes)
    assert set().union(*map(_pairs, scenes)) >= HELD_OUT
    assert all(scene.person is None for scene in scenes)


def test_a_scene_is_a_function_of_its_seed():
    assert _scenes(20) == _scenes(20)


def test_kinds_come_in_their_shares():
    scenes = _scenes(1500)
    share = {kind: sum(s.kind == kind for s in scenes) / 1500 for kind in ("single", "person")}
    assert share["single"] == pytest.approx(0.5, abs=0.05)
    assert share["person"] == pytest.approx(0.125, abs=0.03)


def test_captions_name_every_solid_and_are_several():
    for scene in _scenes(300):
        assert len(scene.texts) == len(set(scene.texts)) >= 5
        for solid in scene.solids:
            assert f"{solid.colour} {solid.shape}" in scene.texts[0]
        if scene.kind == "alike":
            number = {2: "two", 3: "three"}[len(scene.solids)]
            assert scene.texts[0].startswith(number)
            assert len(_pairs(scene)) == 1
        if scene.person is not None:
            assert any(scene.person.shirt in text for text in scene.texts)


def test_captions_say_sizes_as_they_are():
    for scene in _scenes(600):
        if scene.kind in ("single", "pair"):
            for solid in scene.solids:
                for size in ("big", "small"):
                    said = f"{size} {solid.colour} {solid.shape}" in scene.texts[0]
                    twin = len(_pairs(scene)) < len(scene.solids)
                    assert twin or not said or solid.size == size


def test_relations_agree_with_where_the_solids_stand():
    """Seen from the front, x grows to the right and y away from the camera."""
    seen = set()
    for scene in _scenes(800):
        if scene.relation is None:
            continue
        seen.add(scene.relation)
        first, second = scene.solids
        assert {
            "left of": first.x < second.x,
            "right of": first.x > second.x,
            "in front of": first.y < second.y,
            "behind": first.y > second.y,
        }[scene.relation]
        assert scene.texts[0].index(first.shape) < scene.texts[0].index(scene.relation)
    assert len(seen) == 4


def test_a_row_is_named_from_left_to_right():
    rows = [scene for scene in _scenes(400) if scene.kind == "row"]
    assert rows
    for scene in rows:
        assert [s.x for s in scene.solids] == sorted(s.x for s in scene.solids)
        left, middle, right = (f"{s.colour} {s.shape}" for s in scene.solids)
        assert scene.texts[0] in (
            f"{a} {left}, {b} {middle} and {c} {right}"
            for a in ("a", "an")
            for b in ("a", "an")
            for c in ("a", "an")
        )


def test_pair_captions_are_inverted_truly():
    cube, ball = Thing("red", "cube", "big"), Thing("orange", "ball", "small")
    texts = scene_captions.pair(cube, ball, "left of", True, "grey", random.Random(0))
    assert texts[0] == "a big red cube left of a small orange ball"
    assert "a small orange ball right of a big red cube" in texts
    assert "an orange ball right of a red cube" in texts
    assert not any("ball left of" in text or "cube right of" in text for text in texts)
    behind = scene_captions.pair(cube, ball, "behind", False, "grey", random.Random(0))
    assert behind[0] == "a red cube behind an orange ball"
    assert "an orange ball in front of a red cube" in behind


def test_the_camera_sees_right_as_right_and_up_as_up():
    camera = Camera((0.0, 0.0, 0.5), 4.0, -20.0, 40.0)
    spots, depths = camera.project(
        np.array([(0, 0, 0.5), (0.5, 0, 0.5), (0, 0, 1.0), (0, 1.0, 0.5)])
    )
    np.testing.assert_allclose(spots[0], (0.5, 0.5), atol=1e-9)
    assert spots[1][0] > 0.5
    assert spots[2][1] < 0.5
    assert depths[3] > depths[0] == pytest.approx(4.0)
    assert spots[3][1] < spots[0][1]


@pytest.mark.parametrize("fill", [0.3, 0.6, 0.95])
def test_a_fitted_camera_fills_the_picture_as_asked(fill: float):
    points = np.concatenate([Solid("red", "cube", "big", x, 0.1, 0).corners() for x in (-0.8, 0.7)])
    camera = fit(points, elevation=-25, fovy=40, fill=fill, shift=(0.5, -0.5))
    spots, _ = camera.project(points)
    extent = spots.max(axis=0) - spots.min(axis=0)
    assert extent.max() == pytest.approx(fill, abs=0.01)
    assert spots.min() > 0
    assert spots.max() < 1
    assert (spots.max(axis=0) + spots.min(axis=0))[0] / 2 > 0.5


def test_boxes_enclose_their_objects():
    ids = np.zeros((8, 8), dtype=np.uint8)
    ids[2:5, 1:4] = 1
    ids[6, 7] = 2
    assert find_boxes(ids) == {1: (1, 2, 4, 5), 2: (7, 6, 8, 7)}


@pytest.mark.parametrize(
    ("relation", "second"),
    [
        ("left of", (80, 40, 120, 80)),
        ("in front of", (20, 10, 60, 50)),
        ("behind", (20, 70, 60, 110)),
    ],
)
def test_relations_hold_in_the_picture_one_way_only(
    relation: str, second: tuple[int, int, int, int]
):
    first = (10, 40, 50, 80)
    assert relation_holds(relation, first, second)
    assert not relation_holds(scene_captions.INVERSE[relation], first, second)
    assert relation_holds(scene_captions.INVERSE[relation], second, first)
    assert not relation_holds(relation, first, first)


def test_make_knows_every_source_of_the_scenes():
    rule = (RECIPE / "Makefile").read_text().split("SCENE_SOURCES :=")[1].split("\n$(")[0]
    named = set(rule.replace("\\", " ").split())
    assert all((RECIPE / name).is_file() for name in named)
    script = (RECIPE / "scenes.py").read_text().split("SOURCES = (")[1].split("\n)")[0]
    assert set(re.findall(r'"([\w.]+)"', script)) == named - {"held_out.py"}
