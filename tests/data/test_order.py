from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.data.order import BatchOrder

group_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@given(group_sizes, st.integers(1, 17), st.integers(0, 2**40), st.integers(1, 3))
def test_each_member_comes_once_per_epoch(
    sizes: list[int], batch_size: int, seed: int, epochs: int
):
    order = BatchOrder(sizes, batch_size, seed)
    seen: Counter[tuple[int, int, int]] = Counter()
    taken = [0] * len(sizes)
    # After the steps that cover some epochs, each group is behind by less than one batch.
    for step in range(sum(epochs * size // batch_size for size in sizes)):
        group, members = order.at(step)
        assert len(members) == batch_size
        taken[group] += batch_size
        for member, epoch in members:
            assert 0 <= member < sizes[group]
            seen[group, member, epoch] += 1
    assert set(seen.values()) <= {1}
    for group, size in enumerate(sizes):
        assert epochs * size - batch_size < taken[group] <= epochs * size
        for epoch in range(taken[group] // size):
            assert all(seen[group, member, epoch] == 1 for member in range(size))


@given(group_sizes, st.integers(1, 17), st.integers(0, 99), st.permutations(range(12)))
def test_a_batch_is_the_same_in_whatever_order_they_are_asked_for(
    sizes: list[int], batch_size: int, seed: int, steps: list[int]
):
    straight = BatchOrder(sizes, batch_size, seed)
    expected = [straight.at(step) for step in range(12)]
    jumping = BatchOrder(sizes, batch_size, seed)
    assert {step: jumping.at(step) for step in steps} == dict(enumerate(expected))
    assert BatchOrder(sizes, batch_size, seed).at(11) == expected[11]


def test_groups_take_turns_in_proportion():
    order = BatchOrder([900, 100], 10, 0)
    assert order.steps_per_epoch == 100
    for epoch in range(3):
        turns = Counter(order.at(step)[0] for step in range(100 * epoch, 100 * epoch + 100))
        assert turns == {0: 90, 1: 10}


def test_epochs_and_seeds_differ():
    orders = [
        [
            member
            for step in range(10)
            for member, _ in BatchOrder([100], 10, seed).at(start + step)[1]
        ]
        for seed in (0, 1)
        for start in (0, 10)
    ]
    assert all(sorted(members) == list(range(100)) for members in orders)
    assert len({tuple(members) for members in orders}) == 4
    assert list(range(100)) not in orders


def test_groups_are_mixed_within_an_epoch():
    turns = [BatchOrder([50, 50], 5, 0).at(step)[0] for step in range(20)]
    assert turns not in (sorted(turns), sorted(turns, reverse=True))


def test_fewer_pictures_than_a_batch_holds():
    order = BatchOrder([3], 8, 0)
    members = [member for step in range(3) for member, _ in order.at(step)[1]]
    assert Counter(members) == {0: 8, 1: 8, 2: 8}
    assert [epoch for _, epoch in order.at(1)[1]] == [2, 3, 3, 3, 4, 4, 4, 5]


def test_a_late_step_is_found_at_once():
    order = BatchOrder([100_003, 7, 31], 64, 0)
    group, members = order.at(10**9)
    assert len(members) == 64
    assert order.at(10**9) == (group, members)


def test_mistakes():
    for sizes, batch_size in (([], 1), ([3, 0], 1), ([3], 0)):
        with pytest.raises(ValueError, match="should"):
            BatchOrder(sizes, batch_size, 0)
    with pytest.raises(ValueError, match="at least 0"):
        BatchOrder([3], 1, 0).at(-1)
