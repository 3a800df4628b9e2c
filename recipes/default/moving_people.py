"""People who move in place: angles of the joints over time, and what captions say.

Angles are those of `people`: (forward, side) in degrees.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from people import Angles, Person, draw_person
from scene_captions import person as captions_of
from solids import COLOURS

Frame = tuple[Angles, dict[str, float]]
"""What is changed of a person at a time: angles by part, and `yaw`, `lean` and `lift`."""


@dataclass(frozen=True)
class Act:
    """What a person does, what captions call it, the yaws from which it is clear, and how often a
    second it repeats.
    """

    names: tuple[str, ...]
    frame: Callable[[float], Frame]  # of the part of a period that has passed, 0 to 1
    views: tuple[float, ...] = (0,)
    often: tuple[float, float] = (0.8, 1.8)
    mirrored: bool = False


@dataclass(frozen=True)
class Acting:
    """A person, what is done, in which phase it begins, and how often a second it repeats."""

    person: Person
    act: Act
    often: float
    phase: float
    mirrored: bool

    def at(self, seconds: float) -> Person:
        """The person at a time."""
        passed = (self.phase + self.often * seconds) % 1.0
        angles, others = self.act.frame(passed)
        if self.mirrored:
            angles = {_other_side(part): pair for part, pair in angles.items()}
        person = replace(self.person, angles=self.person.angles | angles)
        return replace(
            person,
            yaw=person.yaw + others.get("yaw", 0.0),
            lean=person.lean + others.get("lean", 0.0),
            lift=others.get("lift", 0.0),
        )


def draw_acting(rng: random.Random, floor: str) -> tuple[Acting, tuple[str, ...]]:
    """A person doing something, and captions, the canonical one first."""
    act = rng.choice(ACTS)
    person = draw_person(random.Random(rng.random()), COLOURS)
    standing = {
        part: (4.0, 12.0) if part.endswith("_arm") else (0.0, 2.0) for part in person.angles
    }
    person = replace(
        person,
        names=act.names,
        angles=standing,
        yaw=rng.choice(act.views) + rng.uniform(-10, 10),
        lean=0.0,
        lift=0.0,
        on_box=False,
    )
    often, phase = rng.uniform(*act.often), rng.random()
    acting = Acting(person, act, often, phase, act.mirrored and rng.random() < 0.5)
    texts = captions_of(act.names, person.shirt, person.trousers, floor, rng)
    return acting, tuple(texts)


def _swing(passed: float) -> float:
    return math.sin(2 * math.pi * passed)


def _waving(passed: float) -> Frame:
    return {"left_arm": (0, 108), "left_forearm": (0, 45 + 38 * _swing(passed))}, {}


def _waving_both(passed: float) -> Frame:
    turn = 35 * _swing(passed)
    arms: Angles = {f"{side}_arm": (0, 125) for side in ("left", "right")}
    return arms | {f"{side}_forearm": (0, 20 + turn) for side in ("left", "right")}, {}


def _stepping(passed: float, reach: float, knee: float, elbow: float) -> Angles:
    swing = _swing(passed)
    angles: Angles = {}
    for side, sign in (("left", 1), ("right", -1)):
        forward = sign * swing
        lifted = max(0.0, math.cos(2 * math.pi * passed) * sign)
        angles[f"{side}_thigh"] = (reach * forward + 12 * lifted, 0)
        angles[f"{side}_shin"] = (-6 - knee * lifted, 0)
        angles[f"{side}_arm"] = (-reach * forward, 8)
        angles[f"{side}_forearm"] = (elbow, 0)
    return angles


def _walking(passed: float) -> Frame:
    return _stepping(passed, 28, 40, 18), {}


def _running(passed: float) -> Frame:
    lift = 0.06 * abs(_swing(passed))
    return _stepping(passed, 48, 75, 85), {"lean": 10, "lift": lift}


def _jumping(passed: float) -> Frame:
    up = max(0.0, math.sin(2 * math.pi * passed))
    bend = 30 * max(0.0, -math.sin(2 * math.pi * passed))
    angles: Angles = {}
    for side in ("left", "right"):
        angles[f"{side}_arm"] = (0, 25 + 110 * up)
        angles[f"{side}_thigh"] = (bend * 1.6, 3 + 14 * up)
        angles[f"{side}_shin"] = (-2.2 * bend, 0)
    return angles, {"lift": 0.34 * up}


def _raising(passed: float) -> Frame:
    up = 0.5 - 0.5 * math.cos(2 * math.pi * passed)
    return {f"{side}_arm": (0, 14 + 148 * up) for side in ("left", "right")}, {}


def _bowing(passed: float) -> Frame:
    down = 0.5 - 0.5 * math.cos(2 * math.pi * passed)
    return {}, {"lean": 62 * down}


def _squatting(passed: float) -> Frame:
    down = 0.5 - 0.5 * math.cos(2 * math.pi * passed)
    angles: Angles = {}
    for side in ("left", "right"):
        angles[f"{side}_arm"] = (4 + 76 * down, 8)
        angles[f"{side}_thigh"] = (100 * down, 4 + 10 * down)
        angles[f"{side}_shin"] = (-118 * down, 0)
    return angles, {"lean": 20 * down}


def _turning(passed: float) -> Frame:
    return {}, {"yaw": 360 * passed}


def _kicking(passed: float) -> Frame:
    up = max(0.0, _swing(passed))
    back = max(0.0, -_swing(passed))
    return {
        "left_thigh": (76 * up - 24 * back, 4),
        "left_shin": (-4 - 40 * back, 0),
        "left_arm": (-24 * up + 14 * back, 20),
        "right_arm": (24 * up - 14 * back, 20),
    }, {"lean": -8 * up}


ACTS = (
    Act(("waving", "waving a hand"), _waving, mirrored=True, often=(1.0, 2.4)),
    Act(("waving both hands", "waving with both arms"), _waving_both, often=(1.0, 2.2)),
    Act(("walking in place", "walking"), _walking, (90, -90, 60, -60, 30, -30), (0.7, 1.5)),
    Act(("running in place", "running"), _running, (90, -90, 60, -60), (1.2, 2.2)),
    Act(("jumping up and down", "jumping"), _jumping, often=(0.8, 1.5)),
    Act(("raising both arms", "raising and lowering both arms"), _raising, often=(0.5, 1.2)),
    Act(("bowing", "bending forward"), _bowing, (90, -90, 60, -60), (0.5, 1.0)),
    Act(("doing squats", "squatting"), _squatting, (50, -50, 90, -90), (0.5, 1.1)),
    Act(("turning round", "spinning round"), _turning, (0, 90, 180, -90), (0.35, 0.8)),
    Act(("kicking",), _kicking, (90, -90, 60, -60), (0.7, 1.4), mirrored=True),
)
"""What people do; where it is a pose that pictures show too, it has the same name."""


def _other_side(part: str) -> str:
    side, limb = part.split("_")
    return f"{'right' if side == 'left' else 'left'}_{limb}"
