"""What scenes that move show and say; and their physics, where MuJoCo draws."""

import random
from collections import Counter

import held_out
import measure_video
import numpy as np
import pytest
import torch
from moving_people import ACTS, draw_acting
from moving_solids import Body, Play, draw_play
from people import PARTS
from solids import Look, Solid

HELD_OUT = held_out.read().colour_shape
LOOK = Look("grey", 0.9, 20, 50, 0.6, 0.4)


def plays(count: int, only_held_out: bool = False) -> list[Play]:
    return [
        draw_play(random.Random(i), HELD_OUT, "pink", only_held_out=only_held_out)
        for i in range(count)
    ]


def test_held_out_pairs_do_not_move_in_training():
    drawn = plays(600)
    pairs = {(b.solid.colour, b.solid.shape) for play in drawn for b in play.bodies}
    assert len(pairs) == 48 - len(HELD_OUT)
    assert not pairs & HELD_OUT
    for play in plays(100, only_held_out=True):
        first = play.bodies[0].solid
        assert (first.colour, first.shape) in HELD_OUT
    assert min(Counter(play.kind for play in drawn).values()) >= 5


def test_captions_name_what_is_seen_and_where_it_goes():
    for play in plays(300):
        words = [text.split() for text in play.texts]
        for text, said in zip(play.texts, words, strict=True):
            for body in play.bodies:
                assert body.solid.colour in said or f"{body.solid.colour}," in said, text
            if "right" in said:
                assert play.bodies[0].velocity[0] > 0
            if "left" in said:
                assert play.bodies[0].velocity[0] < 0
        assert len(set(play.texts)) == len(play.texts) >= 4
    same = [draw_play(random.Random(5), HELD_OUT, "pink") for _ in range(2)]
    assert same[0] == same[1]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.names[0])
def test_acts_move_known_parts_and_come_round(act):
    frames = [act.frame(passed) for passed in np.linspace(0, 1, 9)]
    assert {part for angles, _ in frames for part in angles} <= set(PARTS)
    first, last = frames[0], frames[-1]
    for part, pair in first[0].items():
        assert last[0][part] == pytest.approx(pair, abs=1e-6)
    assert any(frame != first for frame in frames[1:-1])


def test_people_are_captioned_by_what_they_do():
    for i in range(40):
        acting, texts = draw_acting(random.Random(i), "beige")
        assert texts[0] == f"a person {acting.act.names[0]}"
        moved = [acting.at(k * 0.042) for k in range(24)]
        assert len({(str(p.angles), p.yaw, p.lean, p.lift) for p in moved}) > 12


def test_held_out_animations_are_listed_and_drawn_once():
    pytest.importorskip("resvg_py", exc_type=ImportError)
    from moving_emoji import draw_held_out, held_out_ideas

    listed = held_out_ideas()
    assert held_out.read().emoji["3d"] <= listed
    codes = [f"{number:x}" for number in range(0x1F400, 0x1F440)]
    drawn = draw_held_out(codes)
    assert drawn == draw_held_out(list(reversed(codes)))
    assert not set(drawn) & held_out.read().emoji["3d"]


def test_physics(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    pytest.importorskip("mujoco", exc_type=ImportError)
    moving_stage = pytest.importorskip("moving_stage", exc_type=ImportError)
    stage = moving_stage.MovingStage()

    def path(play: Play, slot: int = 0) -> np.ndarray:
        """Where the middle of a body is at each frame."""
        places, points = stage.play(play, LOOK, 24, 0.042)
        assert np.isfinite(points).all()
        solid = play.bodies[slot].solid
        geom = stage._model.geom(f"slot{slot}-{solid.shape}-{solid.size}").id
        middles = []
        for place in places:
            stage.at(place)
            middles.append(stage._state.geom_xpos[geom].copy())
        return np.array(middles)

    ball = Solid("red", "ball", "medium", 0, 0, 0)
    rolling = path(Play("rolling", (Body(ball, 0, False, (1, 0, 0), (0, 2, 0)),), ("",)))
    assert rolling[-1, 0] == pytest.approx(23 * 0.042, rel=0.05)
    assert np.ptp(rolling[:, 2]) < 0.02

    falling = Body(ball, 1.0)
    heights = {
        bounce: path(Play("", (falling,), ("",), bounce=bounce))[:, 2] for bounce in (0.05, 0.8)
    }
    assert heights[0.8][13:].max() > heights[0.05][13:].max() + 0.2
    assert all(height.min() > 0.4 for height in heights.values())

    cube = Solid("blue", "cube", "medium", 1.4, 0, 0)
    hit = Play("", (Body(ball, 0, False, (3, 0, 0), (0, 6, 0)), Body(cube)), ("",), friction=0.2)
    assert path(hit, 1)[-1, 0] > 1.5
    assert path(hit, 0)[-1, 0] < 3 * 23 * 0.042 - 0.5
    still = path(Play("", (Body(cube),), ("",), held=True))
    assert np.allclose(still[0], still[-1])


def test_sheets_of_clips_keep_their_order():
    rows = [torch.full((3, 3, 4, 4), value) for value in (-1.0, -0.5, 0.0, 0.5)]
    image = measure_video.sheet(rows, 2)
    assert image.size == (2 * 12 + 8, 8)
    levels = np.asarray(image)[..., 0]
    assert [int(levels[y, x]) for y, x in ((1, 1), (1, 25), (5, 1), (5, 25))] == [0, 64, 128, 191]
