"""Means of skewed values: Student's t with the skewness taken out.

Where losses are rare and large, mean and variance of a sample are low together, and t is too narrow on that side.
Hall's transformation g(T) = ((1 + aT/3)³ − 1) / a + a/6, with a the skewness / √n, is monotone, and its law is
nearer to t's than that of T.

Source: Hall 1992, Journal of the Royal Statistical Society B 54:221–228.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.statistics import student

Floats = NDArray[np.float64]
Groups = NDArray[np.int64] | None


def bounds(
    values: Floats, groups: Groups = None, *, low_alpha: float = 0.05, high_alpha: float = 0.05
) -> tuple[float, float]:
    """One-sided bounds of the mean of `values` [n]: the wider of Student's t and of Hall's transformation of it."""
    from scipy.special import stdtrit

    low, high = student.bounds(values, groups, low_alpha=low_alpha, high_alpha=high_alpha)
    error, count = student.standard_error(values, groups)
    if not 0 < error < math.inf:
        return low, high
    skew, mean = _skew(values, groups), float(values.mean())
    return (
        min(low, mean - error * _back(float(stdtrit(count - 1, 1 - low_alpha)), skew)),
        max(high, mean - error * _back(float(stdtrit(count - 1, high_alpha)), skew)),
    )


def p_below(values: Floats, limit: float, groups: Groups = None) -> float:
    """One-sided p of the null "the mean is at least `limit`": the larger of t's and of the transformed one's."""
    from scipy.special import stdtr

    by_t = student.p_below(values, limit, groups)
    error, count = student.standard_error(values, groups)
    if not 0 < error < math.inf:
        return by_t
    straight = _straight((float(values.mean()) - limit) / error, _skew(values, groups))
    return max(by_t, float(stdtr(count - 1, straight)))


def _skew(values: Floats, groups: Groups) -> float:
    """Skewness / √count of what each row (group) adds to the mean."""
    centred = values - values.mean()
    parts = centred if groups is None else student.group_sums(centred, groups)
    return float(np.mean(parts**3) / np.mean(parts**2) ** 1.5) / math.sqrt(len(parts))


def _straight(t: float, skew: float) -> float:
    if abs(skew) < 1e-6:
        return t
    return ((1 + skew * t / 3) ** 3 - 1) / skew + skew / 6


def _back(t: float, skew: float) -> float:
    if abs(skew) < 1e-6:
        return t
    return 3 / skew * (float(np.cbrt(1 + skew * (t - skew / 6))) - 1)
