"""Latency: the process is the unit of speed ratios; percentiles are bounded at an effective sample size.

Why: times within one process are alike, and processes differ by some 2.5 %: an interval from the rounds of one
process covers the truth about one time in four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.statistics import binomial, student

Floats = NDArray[np.float64]
Samples = Sequence[Floats] | Floats
"""Wall times of one engine in milliseconds: per process [rounds], or [processes, rounds]."""
FEWEST_PROCESSES = 5
"""Below so many processes their spread says too little to size a sample by."""


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


def effective_samples(samples: Samples, q: float, blocks: int = 4) -> float:
    """How many independent samples those of all processes are worth for the q-quantile.

    From the share of samples above the quantile per block and per process; the smaller answer counts, because blocks
    of one process are not independent when processes differ.
    """
    pooled = np.concatenate(samples)
    above = (pooled > np.quantile(pooled, q)).astype(np.float64)
    process = np.repeat(np.arange(len(samples)), [len(one) for one in samples])
    block = np.concatenate([np.arange(len(one)) * blocks // max(len(one), 1) for one in samples])
    sizes = [binomial.effective_rows(above, process * blocks + block)]
    if len(samples) >= FEWEST_PROCESSES:
        sizes.append(binomial.effective_rows(above, process))
    return min(sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exceedance:
    """The share of samples slower than a limit, with one-sided bounds."""

    share: float
    low: float
    high: float
    effective: float


def exceedance(samples: Samples, limit_ms: float, q: float, *, low_alpha: float, high_alpha: float) -> Exceedance:
    """Clopper–Pearson bounds of P(latency > limit), at the effective size."""
    share = float((np.concatenate(samples) > limit_ms).mean())
    worth = effective_samples(samples, q)
    return Exceedance(
        share=share,
        low=binomial.lower(share * worth, worth, low_alpha),
        high=binomial.upper(share * worth, worth, high_alpha),
        effective=worth,
    )


def percentile_bounds(samples: Samples, q: float, alpha: float = 0.05) -> tuple[float, float | None, float | None]:
    """The q-quantile of all samples with bounds by order statistics at the effective size, in milliseconds.

    The ranks of an effective sample are stretched to the real one; None where it is too small to bound the quantile.
    """
    ordered = np.sort(np.concatenate(samples))
    worth = max(int(effective_samples(samples, q)), 1)
    last = len(ordered) - 1
    low, high = (
        None if rank is None else float(ordered[round((rank - 1) * last / max(worth - 1, 1))])
        for rank in binomial.quantile_ranks(worth, q, alpha)
    )
    return float(np.quantile(ordered, q)), low, high
