"""What solids do in a clip, drawn from a seed, and what captions say of it.

Axes: x to the right of the picture, y away from the camera, z up; metres and seconds.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from scene_captions import a, noun
from solids import COLOURS, SHAPES, Solid

Pair = tuple[str, str]
Vector = tuple[float, float, float]

ROLLING = ("ball", "cylinder", "ring")
RADIUS = {"ball": 0.5, "cylinder": 0.4, "ring": 0.55}
SIDES = {"left": -1, "right": 1}


@dataclass(frozen=True)
class Body:
    """A solid at the beginning: how high its lowest point is, whether it lies on its side, its
    velocity, and its turning in radians a second about each axis.
    """

    solid: Solid
    height: float = 0.0
    lying: bool = False
    velocity: Vector = (0.0, 0.0, 0.0)
    turning: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Play:
    """What happens: bodies, how they touch, and captions, the canonical one first.

    `bounce` is 0 to 1, `friction` is that with the floor, and with `held` nothing falls.
    """

    kind: str
    bodies: tuple[Body, ...]
    texts: tuple[str, ...]
    bounce: float = 0.1
    friction: float = 0.6
    held: bool = False


def draw_play(
    rng: random.Random, held_out: Collection[Pair], floor: str, *, only_held_out: bool = False
) -> Play:
    """Draws what happens. Solids avoid the held-out colour x shape pairs; with `only_held_out` the
    one that moves first is such a pair.
    """
    allowed = sorted({(c, s) for c in COLOURS for s in SHAPES} - set(held_out))
    firsts = sorted(held_out) if only_held_out else allowed
    kinds = {
        "rolling": 0.24,
        "bouncing": 0.2,
        "sliding": 0.14,
        "falling": 0.12,
        "hitting": 0.2,
        "turning": 0.07,
        "lying": 0.03,
    }
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    return _PLAYS[kind](rng, firsts, allowed, floor)


def _rolling(rng: random.Random, firsts: Sequence[Pair], _: Sequence[Pair], floor: str) -> Play:
    pair = _of(rng, firsts, ROLLING)
    side, speed = rng.choice(list(SIDES)), rng.uniform(0.5, 2.6)
    body = _rolled(rng, pair, SIDES[side] * speed)
    name = noun(body.solid, False)
    return _play(rng, "rolling", (body,), name, f"rolling to the {side}", floor, speed)


def _sliding(rng: random.Random, firsts: Sequence[Pair], _: Sequence[Pair], floor: str) -> Play:
    pair = _of(rng, firsts, ("cube", "cylinder", "cone", "pyramid"))
    side, speed = rng.choice(list(SIDES)), rng.uniform(0.6, 2.6)
    body = Body(_solid(rng, pair), velocity=(SIDES[side] * speed, 0.0, 0.0))
    name, doing = noun(body.solid, False), f"sliding to the {side}"
    return _play(rng, "sliding", (body,), name, doing, floor, speed, friction=0.08)


def _bouncing(rng: random.Random, firsts: Sequence[Pair], _: Sequence[Pair], floor: str) -> Play:
    pair = _of(rng, firsts, ("ball", "ball", "ball", "cube"))
    side = rng.choice(("", "", "left", "right"))
    along = SIDES.get(side, 0) * rng.uniform(0.6, 1.4)
    body = Body(
        _solid(rng, pair),
        height=rng.uniform(0.2, 1.3),
        velocity=(along, 0.0, rng.uniform(-2.5, 1.5)),
        turning=(0.0, 0.0, rng.uniform(-1, 1)),
    )
    doing = f"bouncing to the {side}" if side else "bouncing"
    name = noun(body.solid, False)
    return _play(
        rng, "bouncing", (body,), name, doing, floor, bounce=rng.uniform(0.6, 0.85), friction=0.4
    )


def _falling(rng: random.Random, firsts: Sequence[Pair], _: Sequence[Pair], floor: str) -> Play:
    body = Body(
        _solid(rng, rng.choice(firsts)),
        height=rng.uniform(0.6, 1.6),
        turning=(rng.uniform(-2.5, 2.5), rng.uniform(-2.5, 2.5), rng.uniform(-1.5, 1.5)),
    )
    doing = rng.choice(("falling", "falling onto the floor"))
    return _play(rng, "falling", (body,), noun(body.solid, False), doing, floor, bounce=0.35)


def _hitting(
    rng: random.Random, firsts: Sequence[Pair], allowed: Sequence[Pair], floor: str
) -> Play:
    first = _of(rng, firsts, ROLLING)
    second = rng.choice([pair for pair in allowed if pair != first])
    sign, speed = rng.choice((-1, 1)), rng.uniform(1.6, 3.2)
    gap = rng.uniform(0.25, 0.8)
    moving = _rolled(rng, first, sign * speed, x=-sign * (RADIUS[first[1]] + gap / 2))
    other = Body(_solid(rng, second, x=sign * (0.55 + gap / 2)))
    one, hit = noun(moving.solid, False), noun(other.solid, False)
    side = "right" if sign > 0 else "left"
    texts = [
        f"{a(one)} hitting {a(hit)}",
        f"{a(one)} rolling into {a(hit)}",
        f"{a(one)} rolling to the {side} hits {a(hit)}",
        f"{a(hit)} hit by {a(one)}",
        f"a clip of {a(one)} hitting {a(hit)}",
        f"{a(one)} hitting {a(hit)} on {a(floor)} floor",
    ]
    return Play("hitting", (moving, other), _first_kept(rng, texts), bounce=0.4, friction=0.25)


def _turning(rng: random.Random, firsts: Sequence[Pair], _: Sequence[Pair], floor: str) -> Play:
    pair = _of(rng, firsts, ("cube", "pyramid", "ring"))
    speed = rng.uniform(1.0, 5.0)
    body = Body(_solid(rng, pair), turning=(0.0, 0.0, rng.choice((-1, 1)) * speed))
    doing = rng.choice(("spinning", "turning round"))
    name = noun(body.solid, False)
    return _play(rng, "turning", (body,), name, doing, floor, speed / 2, held=True)


def _lying(rng: random.Random, firsts: Sequence[Pair], _: Sequence[Pair], floor: str) -> Play:
    body = Body(_solid(rng, rng.choice(firsts)))
    name = noun(body.solid, False)
    texts = [f"{a(name)} that does not move", a(name), f"{a(name)} lying still", f"a still {name}"]
    return Play("lying", (body,), _first_kept(rng, texts), held=True)


_PLAYS = {
    "rolling": _rolling,
    "sliding": _sliding,
    "bouncing": _bouncing,
    "falling": _falling,
    "hitting": _hitting,
    "turning": _turning,
    "lying": _lying,
}


def _play(
    rng: random.Random,
    kind: str,
    bodies: tuple[Body, ...],
    name: str,
    doing: str,
    floor: str,
    speed: float | None = None,
    *,
    bounce: float = 0.1,
    friction: float = 0.6,
    held: bool = False,
) -> Play:
    """A play of one solid with its captions; its pace is said where it is slow or fast."""
    texts = [
        f"{a(name)} {doing}",
        f"{name}, {doing}",
        f"a clip of {a(name)} {doing}",
        f"{a(name)} {doing} on {a(floor)} floor",
        f"one {name} {doing}",
    ]
    if speed is not None and (speed < 1.0 or speed > 1.9):
        pace = "slowly" if speed < 1.0 else "fast"
        texts += [f"{a(name)} {doing} {pace}", f"{name} {doing} {pace}"]
    return Play(kind, bodies, _first_kept(rng, texts), bounce, friction, held)


def _first_kept(rng: random.Random, texts: list[str]) -> tuple[str, ...]:
    first, *others = texts
    rng.shuffle(others)
    return (first, *others)


def _of(rng: random.Random, pairs: Sequence[Pair], shapes: Sequence[str]) -> Pair:
    """A pair of one of the shapes, as often as that is named."""
    there = [shape for shape in shapes if any(pair[1] == shape for pair in pairs)]
    shape = rng.choice(there)
    return rng.choice([pair for pair in pairs if pair[1] == shape])


def _solid(rng: random.Random, pair: Pair, x: float = 0.0) -> Solid:
    yaw = rng.uniform(-25, 25) if pair[1] == "ring" else rng.uniform(0, 360)
    return Solid(pair[0], pair[1], "medium", x, rng.uniform(-0.08, 0.08), yaw)


def _rolled(rng: random.Random, pair: Pair, velocity: float, x: float = 0.0) -> Body:
    """A solid that rolls along x without slipping: a cylinder on its side, a ring upright."""
    yaw = rng.uniform(0, 360) if pair[1] == "ball" else rng.uniform(-6, 6)
    solid = Solid(pair[0], pair[1], "medium", x, rng.uniform(-0.08, 0.08), yaw)
    turning = (0.0, velocity / RADIUS[pair[1]], 0.0)
    return Body(solid, 0.0, pair[1] == "cylinder", (velocity, 0.0, 0.0), turning)
