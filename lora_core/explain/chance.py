"""How much of a figure is chance: the spread of seeds, the difference of two settings, an interval.

The difference of two settings is judged by Welch's t interval (Welch 1947, *Biometrika* 34:28): the
seeds of the two need not spread equally, and two of them are enough to ask. A share of texts has
Wilson's interval (Wilson 1927, *JASA* 22:209), which stays within 0 and 1 and is right for few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """The same setting with several seeds."""

    mean: float
    deviation: float  # sample standard deviation (n - 1); 0 for a single seed
    count: int


@dataclass(frozen=True)
class Difference:
    """One mean or share minus another, with its 95 % interval; infinite for single seeds."""

    value: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether zero lies outside the interval."""
        return not self.low <= 0.0 <= self.high


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of one value or more. Raises `ValueError` for none."""
    if not values:
        raise ValueError("There is no run to take the mean of.")
    return Spread(fmean(values), stdev(values) if len(values) > 1 else 0.0, len(values))


def difference(
    first: Sequence[float], second: Sequence[float], grain: float = 0.0, pairs: int = 1
) -> Difference:
    """The mean of `first` minus that of `second`, with Welch's 95 % interval.

    `pairs` is how many differences could have been asked for where this one was picked by its
    result, such as the best of many against the worst: the interval is widened so that of all of
    them together it misses one time in twenty at most (Bonferroni).

    `grain` is the step in which the values come (1 / texts, for an accuracy): a value is known to
    half a step only, so no variance is taken to be below that of the rounding, grain^2 / 12. With
    a single value on either side the interval is infinite: nothing is known about its spread.
    """
    one, two = spread(first), spread(second)
    value = one.mean - two.mean
    if min(one.count, two.count) < 2:
        return Difference(value, -math.inf, math.inf)
    floor = grain * grain / 12
    parts = [max(s.deviation**2, floor) / s.count for s in (one, two)]
    error = math.sqrt(sum(parts))
    if error == 0.0:
        return Difference(value, value, value)
    squares = [
        part * part / (s.count - 1) for part, s in zip(parts, (one, two), strict=True) if part
    ]
    freedom = sum(parts) ** 2 / sum(squares)
    half = t_quantile(1 - (1 - CONFIDENCE) / (2 * pairs), freedom) * error
    return Difference(value, value - half, value + half)


def wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share, `right` of `rows`, within 0 and 1. Of no rows: all of it."""
    if rows == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    share, square = right / rows, z * z / rows
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / rows + square / (4 * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def difference_of_shares(first: tuple[int, int], second: tuple[int, int]) -> Difference:
    """The share `right` of `rows` of `first` minus that of `second`, with Newcombe's 95 % interval
    for different texts (Newcombe 1998, *Statistics in Medicine* 17:873, his method 10).

    It is made of both shares' Wilson intervals, so it is right for few texts, too.
    """
    (p, low_p, high_p), (q, low_q, high_q) = (
        (right / rows, *wilson(right, rows)) for right, rows in (first, second)
    )
    value = p - q
    return Difference(
        value,
        value - math.hypot(p - low_p, high_q - q),
        value + math.hypot(high_p - p, q - low_q),
    )


def sign_test(won: int, lost: int) -> float:
    """How probable so uneven a split, or a more uneven one, is where each side wins as often: the
    exact two-sided sign test, which is McNemar's for two answers to the same texts. 0 to 1."""
    n, fewer = won + lost, min(won, lost)
    tail: float = sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n
    return min(1.0, 2 * tail)


def t_quantile(p: float, freedom: float) -> float:
    """The value below which Student's t with `freedom` degrees lies with probability `p` >= 0.5."""
    low, high = 0.0, 1.0
    while t_distribution(high, freedom) < p:
        low, high = high, 2 * high
    return _root(lambda t: t_distribution(t, freedom) - p, low, high)


def t_distribution(t: float, freedom: float) -> float:
    """P(T <= t) for Student's t, `t` >= 0, by the incomplete beta function."""
    x = freedom / (freedom + t * t)
    return 1.0 - 0.5 * _beta_share(x, freedom / 2, 0.5)


def _beta_share(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b): 0 at x = 0, 1 at x = 1."""
    if x <= 0.0 or x >= 1.0:
        return min(1.0, max(0.0, x))
    if x > (a + 1) / (a + b + 2):  # there the fraction converges slowly; its mirror image fast
        return 1.0 - _beta_share(1.0 - x, b, a)
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log + a * math.log(x) + b * math.log1p(-x)) / a
    return front * _beta_fraction(x, a, b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, from its last term upwards."""
    value = 1.0
    for m in range(200, 0, -1):
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        value = 1.0 + odd / (1.0 + even / value)
    return 1.0 / value


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return (low + high) / 2
