"""A person of capsules: its body for MuJoCo, its poses, and where its key points are.

The person faces the camera (-y) at yaw 0, so that its left is on the picture's right. A joint turns
by two angles in degrees: `forward`, and `side`, away from the body.
"""

import math
import random
from dataclasses import dataclass

import numpy as np

KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle", "neck"),
)
"""COCO's 17 key points, in its order, and the neck."""

PARTS = (
    *("person", "chest", "head"),
    *(
        f"{side}_{limb}"
        for side in ("left", "right")
        for limb in ("arm", "forearm", "thigh", "shin")
    ),
)

SKINS = (
    (0.96, 0.8, 0.69),
    (0.9, 0.69, 0.53),
    (0.76, 0.54, 0.38),
    (0.55, 0.36, 0.24),
    (0.36, 0.23, 0.16),
)
HAIRS = ((0.08, 0.06, 0.05), (0.3, 0.18, 0.1), (0.85, 0.66, 0.3), (0.6, 0.25, 0.1), (0.6, 0.6, 0.6))

Angles = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Pose:
    """A pose: what captions call it, the joints' (forward, side) angles, and how it is set up.

    `mirrored` poses are drawn as they are or as their mirror image. `views` are the yaws from which
    the pose is clear. `lean` is the chest's forward angle, `lift` the height above the floor.
    """

    names: tuple[str, ...]
    angles: Angles
    mirrored: bool = False
    views: tuple[float, ...] = (0,)
    lean: float = 0
    lift: float = 0
    on_box: bool = False


@dataclass(frozen=True)
class Person:
    """A posed person: joint angles by part, yaw in degrees, and colours by kind of part."""

    names: tuple[str, ...]
    angles: Angles
    yaw: float
    lean: float
    lift: float
    on_box: bool
    shirt: str
    trousers: str
    colours: dict[str, tuple[float, float, float]]


def _both(limb: str, forward: float, side: float) -> Angles:
    return {f"left_{limb}": (forward, side), f"right_{limb}": (forward, side)}


_ARMS_DOWN = _both("arm", 4, 12)

POSES = (
    Pose(("standing",), _ARMS_DOWN, views=(0, 0, 35, -35)),
    Pose(
        ("with both arms raised", "raising both arms", "with arms up"),
        _both("arm", 0, 160) | _both("forearm", 0, 8),
    ),
    Pose(
        ("waving", "waving a hand"),
        {"left_arm": (0, 105), "left_forearm": (0, 60), "right_arm": (4, 12)},
        True,
    ),
    Pose(
        ("with one arm raised", "raising one arm"),
        {"left_arm": (0, 172), "right_arm": (4, 12)},
        True,
    ),
    Pose(("in a t-pose", "with arms stretched out to the sides"), _both("arm", 0, 90)),
    Pose(
        ("sitting on a box", "sitting"),
        _both("arm", 25, 10)
        | _both("forearm", 40, 0)
        | _both("thigh", 88, 6)
        | _both("shin", -88, 0),
        views=(25, -25, 50, -50, 90, -90),
        on_box=True,
    ),
    Pose(
        ("sitting on the floor", "sitting with legs stretched out"),
        _both("arm", -28, 14) | _both("thigh", 86, 10) | _both("shin", -4, 0),
        views=(50, -50, 90, -90),
        lean=-14,
    ),
    Pose(
        ("walking",),
        {
            "left_arm": (-28, 8),
            "right_arm": (30, 8),
            "left_forearm": (12, 0),
            "right_forearm": (25, 0),
            "left_thigh": (28, 0),
            "right_thigh": (-22, 0),
            "left_shin": (-6, 0),
            "right_shin": (-18, 0),
        },
        True,
        views=(90, -90, 65, -65),
    ),
    Pose(
        ("running",),
        {
            "left_arm": (-50, 8),
            "right_arm": (45, 8),
            "left_forearm": (90, 0),
            "right_forearm": (90, 0),
            "left_thigh": (65, 0),
            "right_thigh": (-25, 0),
            "left_shin": (-75, 0),
            "right_shin": (-70, 0),
        },
        True,
        views=(90, -90, 65, -65),
        lean=14,
        lift=0.06,
    ),
    Pose(
        ("kneeling",),
        _both("arm", 8, 14) | _both("thigh", 2, 6) | _both("shin", -92, 0),
        views=(45, -45, 75, -75, 90),
    ),
    Pose(
        ("with hands on hips", "standing with hands on hips"),
        _both("arm", -8, 52) | _both("forearm", 0, -98),
    ),
    Pose(
        ("jumping", "jumping with arms and legs spread"),
        _both("arm", 0, 135) | _both("thigh", 0, 32),
        lift=0.32,
    ),
    Pose(
        ("bowing", "bending forward"),
        _both("arm", 8, 6),
        views=(90, -90, 65, -65),
        lean=62,
    ),
    Pose(
        ("squatting", "crouching"),
        _both("arm", 80, 8) | _both("thigh", 108, 14) | _both("shin", -128, 0),
        views=(35, -35, 65, -65, 90, -90),
        lean=22,
    ),
    Pose(
        ("kicking",),
        {
            "left_arm": (-25, 45),
            "right_arm": (25, 45),
            "left_thigh": (78, 4),
            "left_shin": (-4, 0),
            "right_thigh": (-4, 0),
        },
        True,
        views=(90, -90, 60, -60),
        lean=-10,
    ),
    Pose(
        ("standing on one leg", "balancing on one leg"),
        _both("arm", 0, 80) | {"left_thigh": (75, 8), "left_shin": (-95, 0)},
        True,
        views=(20, -20, 45, -45),
    ),
    Pose(
        ("pointing forward", "with both arms stretched forward"),
        _both("arm", 88, 4),
        views=(90, -90, 60, -60),
    ),
    Pose(
        ("with legs apart", "standing with legs apart"), _both("arm", 0, 40) | _both("thigh", 0, 26)
    ),
)


def draw_person(
    rng: random.Random, clothes: dict[str, tuple[float, float, float]], jitter: float = 5
) -> Person:
    """Draws a person in a pose, its angles jittered by a few degrees."""
    pose = rng.choice(POSES)
    angles = {
        part: (f + rng.uniform(-jitter, jitter), s + rng.uniform(-jitter, jitter) / 2)
        for part, (f, s) in (
            {part: (0.0, 2.0) for part in PARTS if "_" in part} | pose.angles
        ).items()
    }
    if pose.mirrored and rng.random() < 0.5:
        angles = {_other_side(part): pair for part, pair in angles.items()}
    shirt, trousers = rng.sample(sorted(clothes), 2)
    skin = rng.choice(SKINS)
    return Person(
        names=pose.names,
        angles=angles,
        yaw=rng.choice(pose.views) + rng.uniform(-12, 12),
        lean=pose.lean + rng.uniform(-2, 2),
        lift=pose.lift,
        on_box=pose.on_box,
        shirt=shirt,
        trousers=trousers,
        colours={
            "skin": skin,
            "hair": rng.choice(HAIRS),
            "shirt": clothes[shirt],
            "trousers": clothes[trousers],
        },
    )


def part_quaternions(person: Person) -> dict[str, tuple[float, float, float, float]]:
    """The turn of every part against the part it hangs on, as quaternions (w, x, y, z)."""
    quaternions = {
        "person": _about((0, 0, 1), person.yaw),
        "chest": _about((1, 0, 0), person.lean),
        "head": _about((1, 0, 0), -0.5 * person.lean),
    }
    for part, (forward, side) in person.angles.items():
        outward = -side if part.startswith("left") else side
        quaternions[part] = _times(_about((0, 1, 0), outward), _about((1, 0, 0), -forward))
    return quaternions


def keypoints_3d(positions: dict[str, np.ndarray], frames: dict[str, np.ndarray]) -> np.ndarray:
    """The key points, (18, 3) metres, from the parts' positions and frames in the world."""

    def at(part: str, x: float, y: float, z: float) -> np.ndarray:
        return positions[part] + frames[part] @ np.array([x, y, z])

    return np.array(
        [
            at("head", 0, -0.125, 0.115),
            at("head", 0.045, -0.11, 0.155),
            at("head", -0.045, -0.11, 0.155),
            at("head", 0.12, 0, 0.13),
            at("head", -0.12, 0, 0.13),
            *(positions[f"{side}_arm"] for side in ("left", "right")),
            *(positions[f"{side}_forearm"] for side in ("left", "right")),
            *(at(f"{side}_forearm", 0, 0, -0.25) for side in ("left", "right")),
            *(positions[f"{side}_thigh"] for side in ("left", "right")),
            *(positions[f"{side}_shin"] for side in ("left", "right")),
            *(at(f"{side}_shin", 0, 0, -0.4) for side in ("left", "right")),
            positions["head"],
        ]
    )


def person_xml() -> str:
    """The body for MuJoCo; geoms are named part-kind so that they can be coloured by kind."""
    return f"""
<body name="person">
  <geom name="pelvis-trousers" type="capsule" fromto="-0.07 0 0 0.07 0 0" size="0.13"/>
  <body name="chest" pos="0 0 0.08">
    <geom name="belly-shirt" type="capsule" fromto="-0.05 0 0.06 0.05 0 0.06" size="0.135"/>
    <geom name="chest-shirt" type="capsule" fromto="-0.085 0 0.3 0.085 0 0.3" size="0.13"/>
    <geom name="back-shirt" type="ellipsoid" pos="0 0 0.19" size="0.19 0.125 0.24"/>
    <body name="head" pos="0 0 0.46">
      <geom name="neck-skin" type="capsule" fromto="0 0 -0.04 0 0 0.05" size="0.055"/>
      <geom name="face-skin" type="ellipsoid" pos="0 0 0.14" size="0.118 0.125 0.145"/>
      <geom name="crown-hair" type="ellipsoid" pos="0 0.025 0.185" size="0.128 0.13 0.12"/>
      <geom name="lefteye-eye" type="sphere" pos="0.045 -0.11 0.155" size="0.02" rgba="0 0 0 1"/>
      <geom name="righteye-eye" type="sphere" pos="-0.045 -0.11 0.155" size="0.02" rgba="0 0 0 1"/>
      <geom name="nose-skin" type="sphere" pos="0 -0.125 0.115" size="0.02"/>
    </body>
    {_arm_xml("left", 0.215)}{_arm_xml("right", -0.215)}
  </body>
  {_leg_xml("left", 0.1)}{_leg_xml("right", -0.1)}
</body>"""


def _arm_xml(side: str, x: float) -> str:
    return f"""
<body name="{side}_arm" pos="{x} 0 0.33">
  <geom name="{side}arm-shirt" type="capsule" fromto="0 0 0 0 0 -0.28" size="0.062"/>
  <body name="{side}_forearm" pos="0 0 -0.29">
    <geom name="{side}forearm-skin" type="capsule" fromto="0 0 0 0 0 -0.24" size="0.048"/>
    <geom name="{side}hand-skin" type="sphere" pos="0 0 -0.31" size="0.066"/>
  </body>
</body>"""


def _leg_xml(side: str, x: float) -> str:
    return f"""
<body name="{side}_thigh" pos="{x} 0 -0.05">
  <geom name="{side}thigh-trousers" type="capsule" fromto="0 0 0 0 0 -0.38" size="0.085"/>
  <body name="{side}_shin" pos="0 0 -0.4">
    <geom name="{side}shin-trousers" type="capsule" fromto="0 0 0 0 0 -0.36" size="0.066"/>
    <geom name="{side}foot-shoe" type="capsule" fromto="0 0.02 -0.42 0 -0.13 -0.42" size="0.06"
          rgba="0.15 0.12 0.12 1"/>
  </body>
</body>"""


def _other_side(part: str) -> str:
    side, limb = part.split("_")
    return f"{'right' if side == 'left' else 'left'}_{limb}"


def _about(axis: tuple[float, float, float], degrees: float) -> tuple[float, float, float, float]:
    half = math.radians(degrees) / 2
    x, y, z = (component * math.sin(half) for component in axis)
    return (math.cos(half), x, y, z)


def _times(
    a: tuple[float, float, float, float], b: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )
