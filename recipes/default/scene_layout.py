"""What a scene shows, drawn from a seed: solids, a person, light, camera and captions."""

import random
from collections.abc import Collection
from dataclasses import dataclass

import scene_captions
from people import Person, draw_person
from solids import COLOURS, FLOORS, SHAPES, Look, Solid, extent

Pair = tuple[str, str]


@dataclass(frozen=True)
class View:
    """How the camera is fitted (see `camera.fit`)."""

    elevation: float
    fovy: float
    fill: float
    shift: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """All that is drawn and said of one picture; `relation` is the first solid's to the second."""

    kind: str
    solids: tuple[Solid, ...]
    person: Person | None
    relation: str | None
    look: Look
    view: View
    texts: tuple[str, ...]


def draw_scene(
    rng: random.Random,
    held_out: Collection[Pair],
    only_held_out: bool = False,
    only_people: bool = False,
) -> Scene:
    """Draws a scene whose solids avoid the held-out colour x shape pairs.

    With `only_held_out`, the first solid is a held-out pair and there is no person; with
    `only_people` there is always one.
    """
    kinds = {"single": 0.5, "pair": 0.22, "alike": 0.1, "row": 0.055, "person": 0.125}
    if only_held_out:
        kinds.pop("person")
    if only_people:
        kinds = {"person": 1.0}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    look = Look(
        floor=rng.choice(sorted(FLOORS)),
        wall_shade=rng.choice((0.86, 0.93, 1.07, 1.15)),
        light_azimuth=rng.uniform(-60, 60),
        light_elevation=rng.uniform(42, 66),
        light=rng.uniform(0.5, 0.7),
        ambient=rng.uniform(0.36, 0.46),
    )
    if kind == "person":
        return _person(rng, look)
    seen = sorted({(c, s) for c in COLOURS for s in SHAPES} - set(held_out))
    first = rng.choice(sorted(held_out)) if only_held_out else rng.choice(seen)
    return {"single": _single, "pair": _pair, "alike": _alike, "row": _row}[kind](
        rng, look, first, seen
    )


def _person(rng: random.Random, look: Look) -> Scene:
    person = draw_person(rng, COLOURS)
    texts = scene_captions.person(person.names, person.shirt, person.trousers, look.floor, rng)
    view = _view(rng, (-24, -8), (0.86, 0.93))
    return Scene("person", (), person, None, look, view, tuple(texts))


def _single(rng: random.Random, look: Look, first: Pair, seen: list[Pair]) -> Scene:
    size = rng.choices(("big", "medium", "small"), (0.15, 0.7, 0.15))[0]
    fill = {"big": (0.85, 0.94), "medium": (0.55, 0.74), "small": (0.28, 0.38)}[size]
    solid = _solid(rng, first, size)
    texts = scene_captions.single(solid, size != "medium", look.floor, rng)
    view = _view(rng, (-32, -14), fill)
    return Scene("single", (solid,), None, None, look, view, tuple(texts))


def _pair(rng: random.Random, look: Look, first: Pair, seen: list[Pair]) -> Scene:
    second = rng.choice([pair for pair in seen if pair != first])
    relation = rng.choice(("left of", "right of", "in front of", "behind"))
    with_size = rng.random() < 0.4
    sizes = rng.sample(("big", "small"), 2) if with_size else ["big", "big"]
    beside = relation in ("left of", "right of")
    if not beside:
        sizes = ["small", "big"] if relation == "in front of" else ["big", "small"]
        sizes = sizes if with_size else ["big", "big"]
    reach = extent(first[1], sizes[0])[0] + extent(second[1], sizes[1])[0]
    if beside:
        apart = reach + rng.uniform(0.12, 0.45)
        sign = -1 if relation == "left of" else 1
        x, y = sign * apart / 2, rng.uniform(-0.12, 0.12)
    else:
        apart = reach + rng.uniform(0.15, 0.4)
        sign = -1 if relation == "in front of" else 1
        x, y = rng.choice((-1, 1)) * rng.uniform(0.16, 0.3) * apart, sign * apart / 2
    solids = (
        _solid(rng, first, sizes[0], x, y),
        _solid(rng, second, sizes[1], -x, -y),
    )
    texts = scene_captions.pair(*solids, relation, with_size, look.floor, rng)
    view = _view(rng, (-30, -16) if beside else (-40, -28), (0.84, 0.94))
    return Scene("pair", solids, None, relation, look, view, tuple(texts))


def _alike(rng: random.Random, look: Look, first: Pair, seen: list[Pair]) -> Scene:
    count = rng.choice((2, 2, 3))
    solids = tuple(
        _solid(rng, first, "big", x, rng.uniform(-0.15, 0.15))
        for x in _places(rng, [first] * count)
    )
    texts = scene_captions.several_alike(solids[0], count, look.floor, rng)
    view = _view(rng, (-30, -16), (0.86, 0.95))
    return Scene("alike", solids, None, None, look, view, tuple(texts))


def _row(rng: random.Random, look: Look, first: Pair, seen: list[Pair]) -> Scene:
    pairs = [first, *rng.sample([pair for pair in seen if pair != first], 2)]
    rng.shuffle(pairs)
    solids = tuple(
        _solid(rng, pair, "big", x, rng.uniform(-0.1, 0.1))
        for pair, x in zip(pairs, _places(rng, pairs), strict=True)
    )
    texts = scene_captions.row(solids, look.floor, rng)
    view = _view(rng, (-30, -16), (0.88, 0.96))
    return Scene("row", solids, None, None, look, view, tuple(texts))


def _solid(rng: random.Random, pair: Pair, size: str, x: float = 0, y: float = 0) -> Solid:
    colour, shape = pair
    yaw = rng.uniform(-32, 32) if shape == "ring" else rng.uniform(0, 360)
    return Solid(colour, shape, size, x, y, yaw)


def _places(rng: random.Random, pairs: list[Pair]) -> list[float]:
    places, x = [], 0.0
    for i, (_, shape) in enumerate(pairs):
        half = extent(shape, "big")[0]
        x += half if i == 0 else half + rng.uniform(0.1, 0.25)
        places.append(x)
        x += half
    return [place - x / 2 for place in places]


def _view(rng: random.Random, elevation: tuple[float, float], fill: tuple[float, float]) -> View:
    return View(
        elevation=rng.uniform(*elevation),
        fovy=rng.uniform(34, 46),
        fill=rng.uniform(*fill),
        shift=(rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5)),
    )
