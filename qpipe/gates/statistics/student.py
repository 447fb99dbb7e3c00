"""Student's t for means, over rows or over clusters of rows.

Source: Liang & Zeger 1986 (sandwich variance over clusters, here with the factor G / (G − 1)); without groups it is
the paired t test.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def group_sums(values: Floats, groups: NDArray[np.int64]) -> Floats:
    """Sum of `values` [n] in each group, [G]."""
    _, index = np.unique(groups, return_inverse=True)
    return np.bincount(index, weights=values).astype(np.float64)


def standard_error(values: Floats, groups: NDArray[np.int64] | None = None) -> tuple[float, int]:
    """Standard error of the mean of `values` [n], and the number of independent groups (rows without groups)."""
    centred = values - values.mean()
    sums = centred if groups is None else group_sums(centred, groups)
    count = len(sums)
    if count < 2:
        return math.inf, count
    return math.sqrt(count / (count - 1) * float(sums @ sums)) / len(values), count


def bounds(
    values: Floats,
    groups: NDArray[np.int64] | None = None,
    *,
    low_alpha: float = 0.05,
    high_alpha: float = 0.05,
) -> tuple[float, float]:
    """One-sided lower and upper bound of the mean of `values` [n], with groups − 1 degrees of freedom."""
    from scipy.special import stdtrit

    error, count = standard_error(values, groups)
    mean = float(values.mean())
    if not math.isfinite(error):
        return -math.inf, math.inf
    freedom = count - 1
    return mean - float(stdtrit(freedom, 1 - low_alpha)) * error, mean + float(stdtrit(freedom, 1 - high_alpha)) * error


def p_below(values: Floats, limit: float, groups: NDArray[np.int64] | None = None) -> float:
    """One-sided p of the null "the mean is at least `limit`": small where it is surely below."""
    from scipy.special import stdtr

    error, count = standard_error(values, groups)
    away = float(values.mean()) - limit
    if not math.isfinite(error):
        return 1.0
    if error == 0:
        return 0.0 if away < 0 else 1.0
    return float(stdtr(count - 1, away / error))
