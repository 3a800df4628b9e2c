"""What a prompt asks of a scene of solids, and whether the solids found in a picture are that."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safelight.config import Value
from safelight.errors import SafelightError

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, each as a fraction of the picture."""

APART = 1 / 16
"""How far apart centres (left, right) or feet (in front, behind) must be, in pictures."""

BIG, SMALL = 0.55, 0.42
"""A single big solid is longer, a small one shorter than this part of the picture."""

IN_DEPTH = ("in front of", "behind")
"""Relations in which distance changes how large a solid looks."""

LARGER = 1.5
"""How many times the area of a small solid one beside it that is called big must have."""


@dataclass(frozen=True)
class AskedSolid:
    """A solid that a prompt names; `size` only if the prompt says it."""

    colour: str
    shape: str
    size: str | None = None


@dataclass(frozen=True)
class SceneTruth:
    """The solids that a prompt names; `relation` is the first one's to the second."""

    solids: tuple[AskedSolid, ...]
    relation: str | None = None


@dataclass(frozen=True)
class FoundObject:
    """An object found in a picture; `area` is its part of the picture."""

    colour: str
    shape: str
    box: Box
    area: float


def read_truth(prompt: str, extras: Mapping[str, Value]) -> SceneTruth | None:
    """The truth of a scene from its metadata row (`objects`, `relation`), as far as the prompt says
    it; None if the row lists no solids.

    Raises `SafelightError` if `objects` is not a list of tables with colour, shape and size.
    """
    objects = extras.get("objects")
    if not objects:
        return None
    if isinstance(objects, str) or not isinstance(objects, Sequence):
        raise SafelightError(f"'objects' of {prompt!r} should be a list, got {objects!r}.")
    solids = tuple(_read_solid(prompt, entry) for entry in objects)
    relation = extras.get("relation")
    said = isinstance(relation, str) and relation in prompt
    return SceneTruth(solids, str(relation) if said else None)


def check(truth: SceneTruth, found: Sequence[FoundObject]) -> dict[str, bool | None]:
    """Whether a picture shows what was asked, aspect by aspect; None where nothing was asked.

    `colour`, `shape` and `colour and shape` hold if every asked solid's are there as often as
    asked; `count` if there are as many objects as asked; `relation` if moreover the first stands to
    the second as asked; `size` if big ones are larger than small ones (or, alone, fill much or
    little of the picture), not told of solids one behind the other; `all` if everything asked
    holds.
    """
    asked_pairs = [(solid.colour, solid.shape) for solid in truth.solids]
    found_pairs = [(thing.colour, thing.shape) for thing in found]
    verdict: dict[str, bool | None] = {
        "colour": _contains([c for c, _ in found_pairs], [c for c, _ in asked_pairs]),
        "shape": _contains([s for _, s in found_pairs], [s for _, s in asked_pairs]),
        "colour and shape": _contains(found_pairs, asked_pairs),
        "count": len(found) == len(truth.solids),
    }
    matched = _match(truth, found) if verdict["colour and shape"] else None
    verdict["relation"] = None
    if truth.relation is not None:
        verdict["relation"] = matched is not None and _stands(truth.relation, *matched[:2])
    verdict["size"] = None
    if any(solid.size for solid in truth.solids) and truth.relation not in IN_DEPTH:
        verdict["size"] = matched is not None and _sized(truth.solids, matched)
    verdict["all"] = all(holds is not False for holds in verdict.values())
    return verdict


def _read_solid(prompt: str, entry: Value) -> AskedSolid:
    if not isinstance(entry, Mapping) or not {"colour", "shape", "size"} <= entry.keys():
        raise SafelightError(
            f"An entry of 'objects' of {prompt!r} should have colour, shape and size: {entry!r}."
        )
    colour, shape, size = (str(entry[key]) for key in ("colour", "shape", "size"))
    said = f"{size} {colour} {shape}" in prompt
    return AskedSolid(colour, shape, size if said else None)


def _contains(found: Sequence[object], asked: Sequence[object]) -> bool:
    return not Counter(asked) - Counter(found)


def _match(truth: SceneTruth, found: Sequence[FoundObject]) -> list[FoundObject]:
    left = sorted(found, key=lambda thing: -thing.area)
    matched: list[FoundObject] = []
    for solid in truth.solids:
        place = [(thing.colour, thing.shape) for thing in left].index((solid.colour, solid.shape))
        matched.append(left.pop(place))
    return matched


def _stands(relation: str, first: FoundObject, second: FoundObject) -> bool:
    across = (second.box[0] + second.box[2] - first.box[0] - first.box[2]) / 2
    nearer = first.box[3] - second.box[3]
    by_relation = {
        "left of": across,
        "right of": -across,
        "in front of": nearer,
        "behind": -nearer,
    }
    if relation not in by_relation:
        raise SafelightError(f"Unknown relation {relation!r}; known: {', '.join(by_relation)}.")
    return by_relation[relation] > APART


def _sized(solids: Sequence[AskedSolid], found: Sequence[FoundObject]) -> bool:
    if len(solids) == 1:
        box = found[0].box
        extent = max(box[2] - box[0], box[3] - box[1])
        return extent > BIG if solids[0].size == "big" else extent < SMALL
    areas = {
        size: [thing.area for solid, thing in zip(solids, found, strict=True) if solid.size == size]
        for size in ("big", "small")
    }
    return min(areas["big"], default=1.0) > LARGER * max(areas["small"], default=0.0)
