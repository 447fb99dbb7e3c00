"""Latency: the process is the unit of speed ratios; percentiles are bounded at an effective sample size.

Why: times within one process are alike, and processes differ by some 2.5 %: an interval from the rounds of one
process covers the truth about one time in four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.statistics import binomial, clusters, student

Floats = NDArray[np.float64]
Samples = Sequence[Floats] | Floats
"""Wall times of one engine in milliseconds: per process [rounds], or [processes, rounds]."""
FEWEST_PROCESSES = 5
"""Below so many processes nothing is said of how processes differ."""


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

    From the variance of the share above the quantile between blocks, or between processes where that says less,
    because blocks of one process are not independent when processes differ. A variance of few clusters is itself
    uncertain: its size shrinks by (z / t)² (Korn & Graubard 1998, section 2).
    """
    pooled = np.concatenate(samples)
    above = (pooled > np.quantile(pooled, q)).astype(np.float64)
    process = np.repeat(np.arange(len(samples)), [len(one) for one in samples])
    block = np.concatenate([np.arange(len(one)) * blocks // max(len(one), 1) for one in samples])
    by_block = binomial.effective_rows(above, process * blocks + block)
    by_process = binomial.effective_rows(above, process)
    if len(samples) < 2 or by_process >= by_block:
        return by_block * clusters.uncertainty(len(samples) * blocks, 0.05)
    return by_process * clusters.uncertainty(len(samples), 0.05)


def process_bound(samples: Samples, q: float, alpha: float) -> float:
    """A time that the q-quantile of a share q of all processes stays below, with confidence 1 − alpha, in ms.

    The one-sided tolerance bound of a normal law for the logarithms of each process's quantile: it decides where
    processes differ so much that their samples are worth only a few.

    Source: Krishnamoorthy & Mathew 2009, Statistical Tolerance Regions, section 2.2.
    """
    from scipy.special import nctdtrit

    if len(samples) < FEWEST_PROCESSES:
        return math.inf
    logs = np.log([float(np.quantile(one, q)) for one in samples])
    root = math.sqrt(len(logs))
    factor = float(nctdtrit(len(logs) - 1, NormalDist().inv_cdf(q) * root, 1 - alpha)) / root
    return math.exp(float(logs.mean()) + factor * float(logs.std(ddof=1)))


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

    The ranks of an effective sample are stretched to the real one. Where processes differ it is so small that its last
    rank, the slowest sample of all, is the bound, or none is: there the one over processes stands if it is lower. None
    where neither bounds the quantile.
    """
    ordered = np.sort(np.concatenate(samples))
    worth = max(int(effective_samples(samples, q)), 1)
    last = len(ordered) - 1
    ranks = binomial.quantile_ranks(worth, q, alpha)
    low, high = (
        None if rank is None else float(ordered[round((rank - 1) * last / max(worth - 1, 1))]) for rank in ranks
    )
    if ranks[1] in {None, worth} and math.isfinite(over := process_bound(samples, q, alpha)):
        high = over if high is None else min(high, over)
    return float(np.quantile(ordered, q)), low, high
