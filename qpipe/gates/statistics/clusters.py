"""How many independent rows a share over groups of rows is worth, for the bound that decides.

Sources: Korn & Graubard 1998 (Survey Methodology 24:193), an effective size with the uncertainty of the variance
between groups; Kish 1965 (Survey Sampling, section 11.7), (Σ s)² / Σ s² for groups of sizes s whose rows are all alike.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.statistics.student import group_sums, standard_error

Floats = NDArray[np.float64]

FEW = 20
"""Groups that carry the variance: below so many it is a guess, and rows of a group are taken for copies."""


def worth(hits: Floats, groups: NDArray[np.int64] | None, alpha: float, *, careful: bool = True) -> float:
    """Independent rows that the 0/1 values `hits` [n] are worth for a bound at `alpha`; all where there are no groups.

    Large groups that miss wholly are rare and may not be there: `careful` takes no more than Kish's size while fewer
    than `FEW` groups carry the variance. With the variance alone a share of .97 in groups of sizes after Pareto's law
    passed at its limit in .20 of trials, now in .01 (of .9 in groups of geometric sizes .12, now at most .03).
    """
    if groups is None:
        return float(len(hits))
    copies, p = kish(groups), float(hits.mean())
    if p in (0.0, 1.0):
        return copies
    error, _ = standard_error(hits, groups)
    if not 0 < error < math.inf:
        return copies
    rows = min(max(p * (1 - p) / error**2, 1.0), len(hits)) * uncertainty(copies, alpha)
    return min(rows, copies) if careful and _carriers(hits - p, groups) < FEW else rows


def kish(groups: NDArray[np.int64]) -> float:
    """How many groups of one size these are worth where all rows of a group are alike, 1 to the number of groups."""
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _carriers(centred: Floats, groups: NDArray[np.int64]) -> float:
    """How many groups the variance rests on: (Σ u²)² / Σ u⁴ of their sums u."""
    squares = group_sums(centred, groups) ** 2
    return float(squares.sum() ** 2 / (squares**2).sum())


def uncertainty(clusters: float, alpha: float) -> float:
    """(z / t)², by which an effective size shrinks: a variance of few clusters is uncertain too (Korn & Graubard)."""
    from scipy.special import stdtrit

    return (NormalDist().inv_cdf(1 - alpha) / float(stdtrit(max(clusters - 1, 1), 1 - alpha))) ** 2
