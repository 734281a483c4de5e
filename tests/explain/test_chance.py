"""Spread, difference and interval, against scipy and against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lora_core.explain.chance import (
    difference,
    difference_of_shares,
    sign_test,
    spread,
    t_distribution,
    t_quantile,
    wilson,
)


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


def test_the_best_of_many_and_the_worst_are_no_pair_like_any() -> None:
    """Six settings that do not differ, three seeds each, texts as many as the spam task has: of a
    hundred such sweeps, the best and the worst are told apart in five at most."""
    chance = np.random.default_rng(0)
    apart = {1: 0, 15: 0}
    for _ in range(400):
        sweep = np.round(chance.normal(0.92, 0.012, (6, 3)) * 483) / 483
        best, worst = sweep[sweep.mean(1).argmax()], sweep[sweep.mean(1).argmin()]
        for pairs in apart:
            apart[pairs] += difference(list(best), list(worst), 1 / 483, pairs).told_apart
    assert apart[1] > 0.10 * 400  # as if nobody had picked them
    assert apart[15] <= 0.05 * 400


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


@pytest.mark.parametrize(
    ("first", "second", "bounds"),
    [  # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ],
)
def test_difference_of_shares_is_newcombes(
    first: tuple[int, int], second: tuple[int, int], bounds: tuple[float, float]
) -> None:
    gap = difference_of_shares(first, second)
    assert (gap.low, gap.high) == pytest.approx(bounds, abs=5e-5)
    assert gap.value == pytest.approx(first[0] / first[1] - second[0] / second[1])


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (7, 3), (3, 7), (12, 1), (40, 60)])
def test_sign_test_is_scipys(won: int, lost: int) -> None:
    judge = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert sign_test(won, lost) == pytest.approx(judge)


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert not any(math.isnan(bound) for bound in wilson(0, 1))
