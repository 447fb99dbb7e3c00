"""Statistics of many resamples at once, each given as counts per unit.

A resample is a row of `counts` [b, n]: how often each unit was drawn. Sorting happens once instead of per resample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def means(values: Floats, counts: Floats) -> Floats:
    """Mean of `values` [n] in each resample, [b]; NaN for an empty one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        # einsum, not @: threads of a BLAS would wait for each other on a busy machine.
        return np.asarray(np.einsum("ij,j->i", counts, values) / counts.sum(axis=1))


def midranks(values: Floats, drawn: Floats) -> Floats:
    """Midrank of each unit within its resample, [n, b]: ranks start at 1, ties get their mean rank.

    Args:
        values: what is ranked, [n].
        drawn: counts with units first, [n, b]: whole rows are moved, which is several times faster than columns.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    tied = drawn[order] if len(starts) == len(values) else np.add.reduceat(drawn[order], starts, axis=0)
    ranks = np.cumsum(tied, axis=0)
    ranks -= tied / 2
    ranks += 0.5
    tie_of = np.empty(len(values), dtype=np.intp)
    tie_of[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    return np.asarray(ranks[tie_of])


def rank_correlations(first: Floats, second: Floats, counts: Floats) -> Floats:
    """Spearman's correlation of two columns [n] in each resample, [b]; NaN where one of them is constant.

    The mean of midranks is (N + 1) / 2 whatever the ties, and sums of half-integers are exact.
    """
    drawn = np.ascontiguousarray(counts.T)
    total = drawn.sum(axis=0)
    centre = total * ((total + 1) / 2) ** 2
    a, b = midranks(first, drawn), midranks(second, drawn)
    weighted = drawn * a
    covariance = np.einsum("ij,ij->j", weighted, b) - centre
    scale_a = np.einsum("ij,ij->j", weighted, a) - centre
    np.multiply(drawn, b, out=weighted)
    scale_b = np.einsum("ij,ij->j", weighted, b) - centre
    with np.errstate(invalid="ignore", divide="ignore"):
        found = covariance / np.sqrt(scale_a * scale_b)
    return np.where((scale_a > 0) & (scale_b > 0), np.clip(found, -1.0, 1.0), np.nan)


def sums_by_code(codes: NDArray[np.int64], drawn: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The codes that occur, ascending [m], and how often each was drawn, [m, b]; `drawn` is [n, b]."""
    order = np.argsort(codes, kind="stable")
    found, starts = np.unique(codes[order], return_index=True)
    return found, np.add.reduceat(drawn[order], starts, axis=0)


def one(counts_of: int) -> Floats:
    """The sample itself as its only resample: ones [1, n]."""
    return np.ones((1, counts_of))
