"""Statistics of many resamples at once, each given as counts per unit.

A resample is a row of `counts` [b, n]: how often each unit was drawn. Sorting happens once instead of per resample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FEW_CLASSES = 64
"""Up to here one matrix product counts classes faster than a sort and cumulative sums."""


def means(values: Floats, counts: Floats) -> Floats:
    """Mean of `values` [n] in each resample, [b]; NaN for an empty one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counts @ values / counts.sum(axis=1))


def midranks(values: Floats, counts: Floats) -> Floats:
    """Midrank of each unit within its resample, [b, n] (ties get their mean rank; ranks start at 1/2 + count/2)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(drawn, axis=1) - drawn / 2 + 0.5
    tie_of = np.empty(len(values), dtype=np.intp)
    tie_of[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    return np.asarray(ranks[:, tie_of])


def correlations(first: Floats, second: Floats, counts: Floats) -> Floats:
    """Pearson correlation of [b, n] values in each resample, [b]; NaN where one of them is constant."""
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = first - (counts * first).sum(axis=1, keepdims=True) / total
        b = second - (counts * second).sum(axis=1, keepdims=True) / total
        weighted = counts * a
        scale = np.einsum("ij,ij->i", weighted, a) * np.einsum("ij,ij->i", counts * b, b)
        found = np.einsum("ij,ij->i", weighted, b) / np.sqrt(scale)
    # Rounding leaves a constant column a tiny variance: ranks are multiples of 1/2, so a real one is far larger.
    return np.where(scale > 1e-9, np.clip(found, -1.0, 1.0), np.nan)


def sums_by_class(values: NDArray[np.int64], counts: Floats, classes: int) -> Floats:
    """How often each class 0 … classes − 1 was drawn, [b, classes]; negative numbers are no class."""
    if classes <= FEW_CLASSES:
        return np.asarray(counts @ (values[:, None] == np.arange(classes)).astype(np.float64))
    order = np.argsort(values, kind="stable")
    edges = np.searchsorted(values[order], np.arange(classes + 1))
    sums = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts[:, order], axis=1)], axis=1)
    return np.asarray(sums[:, edges[1:]] - sums[:, edges[:-1]])


def one(counts_of: int) -> Floats:
    """The sample itself as its only resample: ones [1, n]."""
    return np.ones((1, counts_of))
