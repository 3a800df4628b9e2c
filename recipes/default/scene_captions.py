"""Captions of a scene: colour, shape, size, count and relation, or a person's pose."""

import random
from collections.abc import Sequence
from typing import Protocol

NUMBERS = {2: "two", 3: "three"}
INVERSE = {
    "left of": "right of",
    "right of": "left of",
    "in front of": "behind",
    "behind": "in front of",
}


class Named(Protocol):
    """What captions say of a solid."""

    @property
    def colour(self) -> str: ...
    @property
    def shape(self) -> str: ...
    @property
    def size(self) -> str: ...


def noun(solid: Named, with_size: bool) -> str:
    """Such as "red cube" or "small red cube"."""
    name = f"{solid.colour} {solid.shape}"
    return f"{solid.size} {name}" if with_size else name


def a(phrase: str) -> str:
    """The phrase after its indefinite article."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def single(solid: Named, with_size: bool, floor: str, rng: random.Random) -> list[str]:
    """Captions of one solid; the size is said only where it shows."""
    name = noun(solid, with_size)
    plain = noun(solid, with_size=False)
    return _canonical_first(
        a(name),
        [
            name,
            f"a picture of {a(name)}",
            f"{a(name)} on {a(floor)} floor",
            f"{a(solid.shape)} that is {solid.colour}",
            f"one {name}",
            f"{a(plain)} on the floor",
            f"{solid.shape}, {solid.colour}",
        ],
        rng,
    )


def several_alike(solid: Named, count: int, floor: str, rng: random.Random) -> list[str]:
    """Captions of two or three equal solids."""
    name = f"{NUMBERS[count]} {solid.colour} {solid.shape}s"
    return _canonical_first(
        name,
        [
            f"{count} {solid.colour} {solid.shape}s",
            f"a picture of {name}",
            f"{name} on {a(floor)} floor",
            f"{NUMBERS[count]} {solid.shape}s, {solid.colour}",
            f"{name} side by side",
        ],
        rng,
    )


def pair(
    first: Named, second: Named, relation: str, with_size: bool, floor: str, rng: random.Random
) -> list[str]:
    """Captions of two solids, the first in the relation to the second."""
    one, other = a(noun(first, with_size)), a(noun(second, with_size))
    plain, plain_other = a(noun(first, False)), a(noun(second, False))
    forward, backward = relation, INVERSE[relation]
    long = {"left of": "to the left of", "right of": "to the right of"}
    return _canonical_first(
        f"{one} {forward} {other}",
        [
            f"{other} {backward} {one}",
            f"{one} {long.get(forward, forward)} {other}",
            f"{plain} {forward} {plain_other}",
            f"{plain_other} {backward} {plain}",
            f"{one} and {other}",
            f"{one} {forward} {other} on {a(floor)} floor",
            f"a picture of {one} {forward} {other}",
        ],
        rng,
    )


def row(solids: Sequence[Named], floor: str, rng: random.Random) -> list[str]:
    """Captions of three different solids, given from left to right."""
    left, middle, right = (a(noun(solid, with_size=False)) for solid in solids)
    return _canonical_first(
        f"{left}, {middle} and {right}",
        [
            f"{left}, {middle} and {right} from left to right",
            f"{middle} between {left} and {right}",
            f"{left} left of {middle} and {right}",
            f"three objects: {left}, {middle} and {right}",
            f"{left}, {middle} and {right} on {a(floor)} floor",
        ],
        rng,
    )


def person(
    names: Sequence[str], shirt: str, trousers: str, floor: str, rng: random.Random
) -> list[str]:
    """Captions of a posed person; `names` are the pose's, the usual one first."""
    pose, *others = names
    other = rng.choice(others or [pose])
    dress = f"{a(shirt)} shirt and {trousers} trousers"
    return _canonical_first(
        f"a person {pose}",
        [
            f"a person {other}",
            f"a person in {a(shirt)} shirt {pose}",
            f"a person in {dress} {pose}",
            f"a person in {a(shirt)} shirt {other}",
            f"a person {pose}, {shirt} shirt, {trousers} trousers",
            f"a picture of a person {pose}",
            f"a person {pose} on {a(floor)} floor",
        ],
        rng,
    )


def _canonical_first(canonical: str, variants: list[str], rng: random.Random) -> list[str]:
    rng.shuffle(variants)
    return [canonical, *dict.fromkeys(text for text in variants if text != canonical)]
