import dataclasses

import pytest

from safelight.errors import SafelightError
from safelight.pipelines.request import Request, check_multiple


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps should be 1 or more, got 0"),
        ({"width": -8}, "width should be 1 or more"),
        ({"height": 0}, "height should be 1 or more"),
        ({"count": 0}, "count should be 1 or more"),
        ({"scale": float("nan")}, "scale should be a finite number"),
        ({"scale": float("inf")}, "scale should be a finite number"),
        ({"scale": -1.0}, "scale should be a finite number"),
        ({"token_merging": 0.8}, "token_merging should lie between 0 and 0.75, got 0.8"),
        ({"token_merging": float("nan")}, "token_merging should lie"),
        ({"seed": 2**64}, "seed should lie between"),
        ({"seed": -(2**63) - 1}, "seed should lie between"),
        ({"seed": 2**64 - 2, "count": 3}, "seed should lie between"),
        ({"prompt": "broken \udc80"}, "not valid Unicode"),
        ({"negative": "broken \udc80"}, "negative prompt is not valid Unicode"),
    ],
)
def test_what_no_model_could_make_is_refused(change, message):
    with pytest.raises(SafelightError, match=message):
        dataclasses.replace(Request("an apple"), **change).check()


@pytest.mark.parametrize(
    "change",
    [{}, {"prompt": ""}, {"scale": 0.0}, {"seed": -(2**63)}, {"seed": 2**64 - 3, "count": 3}],
)
def test_the_edges_are_allowed(change):
    dataclasses.replace(Request("an apple"), **change).check()


@pytest.mark.parametrize(
    ("size", "nearest"), [(100, "nearest: 96 and 104"), (5, "nearest: 8"), (9, "nearest: 8 and 16")]
)
def test_a_size_off_the_grid_names_its_neighbours(size, nearest):
    with pytest.raises(SafelightError, match=nearest):
        check_multiple("width", size, 8)


def test_a_size_on_the_grid_is_fine():
    check_multiple("width", 64, 8)


@pytest.mark.parametrize(
    ("options", "said"), [({"rng": "gpu"}, "rng should be"), ({"prompt_syntax": "A1111"}, "plain")]
)
def test_what_is_no_choice_is_refused(options, said):
    request = Request("a")
    for name, value in options.items():
        object.__setattr__(request, name, value)  # past the tests' own checks of types
    with pytest.raises(SafelightError, match=said):
        request.check()


def test_only_the_sub_seed_counts_up_where_it_has_a_strength():
    Request("a", seed=2**64 - 1, count=2, subseed_strength=0.5).check()
    with pytest.raises(SafelightError, match="seed should lie"):
        Request("a", seed=2**64 - 1, count=2).check()
