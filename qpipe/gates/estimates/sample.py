"""The units that one comparison is made of: all of them, or one slice."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.estimates.estimate import Estimate
from qpipe.gates.statistics import skewness, student
from qpipe.plugins.gate import Alpha, Outcomes
from qpipe.plugins.metric import Metric

Floats = NDArray[np.float64]

FEWEST_GROUPS = 10
"""With five a share at its limit passed in .09 to .11 of trials, with two in .11 to .24 (nominal .05)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Units of engine and reference with what a comparison needs to know of them."""

    metric: Metric
    engine: Floats
    reference: Floats
    groups: NDArray[np.int64] | None
    """None where every unit is a group of its own."""
    margin: float
    alpha: Alpha
    seed: int

    @property
    def sign(self) -> float:
        """1, or −1 where lower is better: everything here is better when larger."""
        return 1.0 if self.metric.higher_is_better else -1.0

    @property
    def change(self) -> Floats:
        """Engine minus reference of each unit, better when larger, [n]."""
        return np.asarray(self.sign * (self.engine[:, 0] - self.reference[:, 0]))


def sample_of(outcomes: Outcomes, margin: float, alpha: Alpha, chosen: NDArray[np.bool_] | None = None) -> Sample:
    """All units, or the `chosen` ones [n]."""
    take = slice(None) if chosen is None else chosen
    return Sample(
        metric=outcomes.metric,
        engine=outcomes.engine[take],
        reference=outcomes.reference[take],
        groups=real_groups(outcomes.groups, chosen),
        margin=margin,
        alpha=alpha,
        seed=outcomes.seed,
    )


def real_groups(groups: NDArray[np.int64] | None, chosen: NDArray[np.bool_] | None = None) -> NDArray[np.int64] | None:
    """Groups of the chosen units, or None where no two units share one."""
    found = groups if groups is None or chosen is None else groups[chosen]
    return None if found is None or len(np.unique(found)) == len(found) else found


def few_groups(groups: NDArray[np.int64] | None) -> str:
    """That a variance between so few groups is a guess; empty where there are enough, or none at all."""
    count = FEWEST_GROUPS if groups is None else len(np.unique(groups))
    return "" if count >= FEWEST_GROUPS else f"only {count} groups, {FEWEST_GROUPS} needed"


def changed_groups(differs: NDArray[np.bool_], groups: NDArray[np.int64] | None) -> tuple[int, int]:
    """How many groups (units without groups) differ, of how many."""
    if groups is None:
        return int(differs.sum()), len(differs)
    sums = student.group_sums(differs.astype(np.float64), groups)
    return int((sums > 0).sum()), len(sums)


def mean_change(sample: Sample) -> Estimate:
    """The mean difference by Student's t over units or groups; of scores without what skewness adds to it."""
    change, groups, alpha = sample.change, sample.groups, sample.alpha
    by = student if sample.metric.kind == "binary" else skewness
    low, high = by.bounds(change, groups, low_alpha=alpha.to_pass, high_alpha=alpha.to_fail)
    error, _ = student.standard_error(change, groups)
    return Estimate(
        n=len(change),
        observed=float(change.mean()),
        low=low,
        high=high,
        p_fail=by.p_below(change, -sample.margin, groups),
        spread=len(change) * error**2 if math.isfinite(error) else 0.0,
    )


def undecidable(found: Estimate, why: str) -> Estimate:
    """The estimate without its bounds: it can decide nothing."""
    return replace(found, low=None, high=None, undecidable=why)
