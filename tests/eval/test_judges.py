import math

import pytest
from scipy.stats import binomtest

from safelight.eval.judges import Rate, rates


@pytest.mark.parametrize(("right", "of"), [(0, 5), (3, 7), (85, 100), (100, 100)])
def test_intervals_are_wilsons(right: int, of: int):
    expected = binomtest(right, of).proportion_ci(0.95, method="wilson")
    low, high = Rate(right, of).interval
    assert low == pytest.approx(expected.low, abs=1e-6)
    assert high == pytest.approx(expected.high, abs=1e-6)


def test_nothing_asked_has_no_part_and_any_interval():
    nothing = Rate(0, 0)
    assert math.isnan(nothing.part)
    assert nothing.interval == (0.0, 1.0)


def test_rates_count_only_what_was_asked():
    verdicts = [{"colour": True, "relation": None}, {"colour": False, "relation": True}, {}]
    assert rates(verdicts) == {"colour": Rate(1, 2), "relation": Rate(1, 1)}
