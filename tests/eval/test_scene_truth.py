import pytest

from safelight.errors import SafelightError
from safelight.eval.scene_truth import AskedSolid, FoundObject, SceneTruth, check, read_truth


def _found(colour: str, shape: str, left: float, bottom: float, side: float = 0.2) -> FoundObject:
    box = (left, bottom - side, left + side, bottom)
    return FoundObject(colour, shape, box, area=side**2)


def test_truth_says_only_what_the_prompt_says():
    objects = [
        {"colour": "red", "shape": "cube", "size": "big", "box": [1, 2, 3, 4]},
        {"colour": "blue", "shape": "ball", "size": "small", "box": [1, 2, 3, 4]},
    ]
    extras = {"objects": objects, "relation": "left of", "floor": "grey"}
    said = read_truth("a big red cube left of a small blue ball", extras)
    assert said == SceneTruth(
        (AskedSolid("red", "cube", "big"), AskedSolid("blue", "ball", "small")), "left of"
    )
    unsaid = read_truth("a red cube and a blue ball", extras)
    assert unsaid == SceneTruth((AskedSolid("red", "cube"), AskedSolid("blue", "ball")), None)
    assert read_truth("a person waving", {"objects": []}) is None
    assert read_truth("a snake", {}) is None


def test_malformed_truth_is_a_one_line_error():
    with pytest.raises(SafelightError, match="colour, shape and size"):
        read_truth("a cube", {"objects": [{"colour": "red"}]})
    with pytest.raises(SafelightError, match="should be a list"):
        read_truth("a cube", {"objects": "cube"})


def test_what_is_asked_is_counted_with_its_number():
    asked = SceneTruth((AskedSolid("red", "cube"), AskedSolid("red", "cube")))
    one, two = (
        [_found("red", "cube", 0.1, 0.8)],
        [_found("red", "cube", x, 0.8) for x in (0.1, 0.6)],
    )
    assert check(asked, two)["all"]
    verdict = check(asked, one)
    assert not verdict["colour and shape"]
    assert not verdict["count"]
    extra = check(asked, [*two, _found("blue", "ball", 0.4, 0.5)])
    assert extra["colour and shape"]
    assert not extra["count"]
    assert not extra["all"]


def test_colours_and_shapes_that_changed_places():
    asked = SceneTruth((AskedSolid("red", "cube"), AskedSolid("blue", "ball")))
    swapped = check(asked, [_found("blue", "cube", 0.1, 0.8), _found("red", "ball", 0.6, 0.8)])
    assert swapped["colour"]
    assert swapped["shape"]
    assert not swapped["colour and shape"]
    assert swapped["relation"] is None


@pytest.mark.parametrize(
    ("relation", "first", "second"),
    [
        ("left of", (0.1, 0.8), (0.6, 0.8)),
        ("right of", (0.6, 0.8), (0.1, 0.8)),
        ("in front of", (0.4, 0.9), (0.5, 0.7)),
        ("behind", (0.5, 0.7), (0.4, 0.9)),
    ],
)
def test_relations_hold_one_way(relation: str, first: tuple, second: tuple):
    asked = SceneTruth((AskedSolid("red", "cube"), AskedSolid("blue", "ball")), relation)
    there = [_found("blue", "ball", *second), _found("red", "cube", *first)]
    assert check(asked, there)["relation"] is True
    turned = [_found("blue", "ball", *first), _found("red", "cube", *second)]
    assert check(asked, turned)["relation"] is False
    missing = [_found("green", "ball", *second), _found("red", "cube", *first)]
    assert check(asked, missing)["relation"] is False


def test_sizes_alone_and_beside_one_another():
    def single(size: str, side: float) -> bool | None:
        asked = SceneTruth((AskedSolid("red", "cube", size),))
        return check(asked, [_found("red", "cube", 0.1, 0.9, side)])["size"]

    assert single("big", 0.7)
    assert not single("big", 0.3)
    assert single("small", 0.3)
    assert not single("small", 0.7)
    pair = (AskedSolid("red", "cube", "big"), AskedSolid("blue", "ball", "small"))
    found = [_found("red", "cube", 0.1, 0.8, 0.4), _found("blue", "ball", 0.6, 0.8, 0.2)]
    assert check(SceneTruth(pair, "left of"), found)["size"] is True
    alike = [_found("red", "cube", 0.1, 0.8, 0.2), _found("blue", "ball", 0.6, 0.8, 0.2)]
    assert check(SceneTruth(pair, "left of"), alike)["size"] is False
    assert check(SceneTruth(pair, "behind"), alike)["size"] is None


def test_an_unknown_relation_is_refused():
    asked = SceneTruth((AskedSolid("red", "cube"), AskedSolid("blue", "ball")), "under")
    there = [_found("blue", "ball", 0.1, 0.5), _found("red", "cube", 0.5, 0.5)]
    with pytest.raises(SafelightError, match="Unknown relation 'under'"):
        check(asked, there)
