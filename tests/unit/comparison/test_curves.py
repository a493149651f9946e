from __future__ import annotations

import math

import pytest

from distill_data.comparison.curves import Curve, Interval, Saving, interval, saving


def test_where_a_curve_first_reaches_a_value() -> None:
    curve = Curve([0, 100, 200, 300], [10.0, 6.0, 7.0, 2.0])
    assert curve.tokens_to_reach(8.0) == 50
    assert curve.tokens_to_reach(6.0) == 100  # first, though it rises again
    assert curve.tokens_to_reach(4.5) == 250
    assert curve.tokens_to_reach(10.5) == 0
    assert curve.tokens_to_reach(1.9) is None
    assert curve.final == 2.0


def test_savings_are_geometric_means_over_seeds() -> None:
    fast = [Curve([0, 100, 400], [10.0, 5.0, 1.0]), Curve([0, 200, 400], [10.0, 5.0, 1.0])]
    slow = [Curve([0, 400], [10.0, 5.0]), Curve([0, 400], [10.0, 5.0])]
    found = saving(fast, slow)
    assert found.factor is not None and found.factor.low is not None
    assert (found.reached, found.seeds) == (2, 2)
    assert found.factor.mean == pytest.approx(math.sqrt(4.0 * 2.0))
    half = 12.706 * math.log(2) / math.sqrt(2) / math.sqrt(2)  # one degree of freedom
    assert found.factor.low == pytest.approx(found.factor.mean * math.exp(-half))


def test_a_value_that_is_not_reached_is_said() -> None:
    never, reaching = Curve([0, 400], [10.0, 6.0]), Curve([0, 400], [10.0, 4.0])
    other = Curve([0, 400], [10.0, 5.0])
    assert saving([never], [other]) == Saving(None, 0, 1)
    found = saving([never, reaching], [other, other])
    assert (found.reached, found.seeds) == (1, 2)
    assert found.factor is not None
    assert (found.factor.mean, found.factor.low) == (pytest.approx(400 / (400 * 5 / 6)), None)


def test_an_arm_that_learnt_nothing_is_nothing_to_reach() -> None:
    assert saving([Curve([0, 400], [10.0, 1.0])], [Curve([0, 400], [10.0, 11.0])]) == Saving(None, 0, 0)


def test_intervals() -> None:
    assert interval([3.0]) == Interval(3.0, None, None)
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high == pytest.approx(2.0 + 4.303 / math.sqrt(3))
    wide = interval([float(number % 2) for number in range(100)])
    assert wide.high == pytest.approx(0.5 + 1.96 * 0.50252 / 10, rel=1e-4)
