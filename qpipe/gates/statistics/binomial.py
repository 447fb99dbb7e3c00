"""Proportions: Clopper–Pearson bounds, effective sample sizes, order statistics of percentiles.

Sources: Clopper & Pearson 1934; Korn & Graubard 1998 (Clopper–Pearson at an effective sample size);
David & Nagaraja 2003, section 7.1 (distribution-free bounds of quantiles).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.statistics.student import standard_error

Floats = NDArray[np.float64]


def lower(successes: float, trials: float, alpha: float) -> float:
    """One-sided lower Clopper–Pearson bound of a proportion; the counts may be fractions (effective sizes)."""
    from scipy.special import betaincinv

    return float(betaincinv(successes, trials - successes + 1, alpha)) if successes > 0 else 0.0


def upper(successes: float, trials: float, alpha: float) -> float:
    """One-sided upper Clopper–Pearson bound of a proportion."""
    return 1.0 - lower(trials - successes, trials, alpha)


def effective_rows(hits: Floats, groups: NDArray[np.int64] | None) -> float:
    """How many independent rows the 0/1 values `hits` [n] are worth, given that rows of a group are alike.

    p(1 − p) / variance between groups, at most n and at least the number of groups; that number where p is 0 or 1.
    """
    rows = len(hits)
    if groups is None or rows == 0:
        return float(rows)
    error, count = standard_error(hits, groups)
    p = float(hits.mean())
    if p in (0.0, 1.0):
        return float(count)
    return float(np.clip(p * (1 - p) / error**2 if error > 0 else rows, min(count, rows), rows))


def quantile_ranks(rows: int, q: float, alpha: float) -> tuple[int | None, int | None]:
    """Ranks (from 1) of the order statistics that bound the q-quantile from below and above, each at `alpha`.

    None where so few rows cannot bound it: the 0.99-quantile has no upper bound below 299 rows.
    """
    from scipy.special import bdtr

    ranks = np.arange(1, rows + 1)
    below = bdtr(ranks - 1, rows, q)  # P(fewer than `rank` samples lie below the quantile)
    lows, highs = ranks[below <= alpha], ranks[below >= 1 - alpha]
    return (int(lows[-1]) if len(lows) else None), (int(highs[0]) if len(highs) else None)
