"""Spread, difference and interval, against scipy and against counting by hand."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from lora_core.explain.chance import difference, spread, t_distribution, t_quantile, wilson


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 2.7, 4, 8, 40])
def test_students_t_is_scipys(freedom: float) -> None:
    for p in (0.5, 0.6, 0.9, 0.975, 0.999):
        assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9, abs=1e-9)
    for t in (0.0, 0.3, 1.0, 3.0, 50.0):
        assert t_distribution(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-12)


@pytest.mark.parametrize("counts", [(2, 2), (2, 5), (3, 3), (5, 4)])
def test_difference_is_scipys_welch(counts: tuple[int, int]) -> None:
    pool = [0.912, 0.931, 0.904, 0.922, 0.917, 0.951, 0.943, 0.948, 0.960, 0.955]
    one, two = pool[: counts[0]], pool[5 : 5 + counts[1]]
    gap = difference(one, two)
    judge = stats.ttest_ind(one, two, equal_var=False)
    low, high = judge.confidence_interval(0.95)
    assert (gap.low, gap.high) == pytest.approx((low, high))
    assert gap.told_apart == (judge.pvalue < 0.05)


def test_one_seed_tells_nothing() -> None:
    assert spread([0.9]).deviation == 0
    assert not difference([0.9], [0.1, 0.1]).told_apart
    with pytest.raises(ValueError, match="no run"):
        spread([])


def test_equal_values_are_known_to_half_a_text_only() -> None:
    # Two seeds that agree to the text: without the grain, any difference would be certain.
    assert difference([0.90, 0.90], [0.91, 0.91]).told_apart
    assert not difference([0.90, 0.90], [0.91, 0.91], grain=0.01).told_apart
    assert difference([0.5, 0.5], [0.5, 0.5]).value == 0


@pytest.mark.parametrize(("right", "rows"), [(0, 10), (10, 10), (463, 483), (1, 2)])
def test_wilson_is_scipys(right: int, rows: int) -> None:
    low, high = stats.binomtest(right, rows).proportion_ci(0.95, "wilson")
    assert wilson(right, rows) == pytest.approx((low, high), abs=1e-12)


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert not any(math.isnan(bound) for bound in wilson(0, 1))
