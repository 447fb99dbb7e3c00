"""Latency: the process is the unit of speed ratios; percentiles are bounded at an effective sample size.

Why: times within one process are alike, and processes differ by some 2.5 %: an interval from the rounds of one
process covers the truth about one time in four.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.statistics import binomial, student

Floats = NDArray[np.float64]


def ratio_bounds(
    log_ratios: Floats, *, low_alpha: float = 0.05, high_alpha: float = 0.05
) -> tuple[float, float, float]:
    """Geometric mean of engine / float with its one-sided bounds: t over processes, in logarithms.

    Args:
        log_ratios: log(median engine / median float) of each process, [processes], at least two.
        low_alpha: error rate of the lower bound.
        high_alpha: error rate of the upper bound.
    """
    low, high = student.bounds(log_ratios, low_alpha=low_alpha, high_alpha=high_alpha)
    return math.exp(float(log_ratios.mean())), math.exp(low), math.exp(high) if high < 700 else math.inf


def effective_samples(samples: Floats, q: float, blocks: int = 4) -> float:
    """How many independent samples [processes, rounds] are worth for the q-quantile.

    From the share of samples above the quantile per block and per process; the smaller answer counts, because blocks
    of one process are not independent when processes differ.
    """
    processes, rounds = samples.shape
    above = (samples > np.quantile(samples, q)).astype(np.float64)
    block = np.minimum(np.arange(rounds) * blocks // rounds, blocks - 1)
    process = np.repeat(np.arange(processes), rounds)
    by_block = process * blocks + np.tile(block, processes)
    sizes = [binomial.effective_rows(above.ravel(), by_block)]
    if processes >= 5:
        sizes.append(binomial.effective_rows(above.ravel(), process))
    return min(sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceedance:
    """The share of samples slower than a limit, with one-sided bounds."""

    share: float
    low: float
    high: float
    effective: float


def exceedance(samples: Floats, limit_ms: float, q: float, *, low_alpha: float, high_alpha: float) -> Exceedance:
    """Clopper–Pearson bounds of P(latency > limit) for samples [processes, rounds], at the effective size."""
    share = float((samples > limit_ms).mean())
    worth = effective_samples(samples, q)
    return Exceedance(
        share=share,
        low=binomial.lower(share * worth, worth, low_alpha),
        high=binomial.upper(share * worth, worth, high_alpha),
        effective=worth,
    )


def percentile_bounds(samples: Floats, q: float, alpha: float = 0.05) -> tuple[float, float | None, float | None]:
    """The q-quantile of samples [processes, rounds] with bounds by order statistics at the effective size, in ms.

    The ranks of an effective sample are stretched to the real one; None where it is too small to bound the quantile.
    """
    ordered = np.sort(samples.ravel())
    worth = max(int(effective_samples(samples, q)), 1)
    low, high = binomial.quantile_ranks(worth, q, alpha)
    last = len(ordered) - 1
    at = [None if rank is None else round((rank - 1) * last / max(worth - 1, 1)) for rank in (low, high)]
    bounds = [None if index is None else float(ordered[index]) for index in at]
    return float(np.quantile(ordered, q)), bounds[0], bounds[1]
