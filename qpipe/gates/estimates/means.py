"""Scores per row by paired t, and metrics of a whole corpus by paired bootstrap, both only from enough differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.estimates.classes import hidden_loss, rare_class, unseen_loss
from qpipe.gates.estimates.estimate import Estimate
from qpipe.gates.estimates.losses import guard_losses, guard_unseen
from qpipe.gates.estimates.sample import Sample, changed_groups, mean_change, undecidable
from qpipe.gates.statistics import binomial, bootstrap
from qpipe.plugins.gate import Alpha
from qpipe.plugins.metric import Metric

Floats = NDArray[np.float64]

FEWEST_UNITS = 100
"""With fewer, rare large losses stay unseen: t passed at the margin in .36 of trials with 50 rows."""
FEWEST_CHANGES = 20
"""Units that differ between engine and reference."""
UNDEFINED = 0.01
"""Share of bootstrap replicates that may be undefined."""


def paired_scores(sample: Sample) -> Estimate:
    """The mean difference of scores, with rows enough that rare large losses would have shown."""
    return guard_losses(_from_enough(sample, lambda: mean_change(sample)), sample)


def paired_corpus(sample: Sample) -> Estimate:
    """The difference of two metrics of the whole sample: the same resamples for both models."""
    metric, rows, groups = sample.metric, sample.reference, sample.groups
    if rare := rare_class(metric, rows, groups):
        return undecidable(_point(sample), rare)
    few = (metric, rows, groups, sample.margin, sample.alpha.to_pass)
    hidden = hidden_loss(*few) or unseen_loss(*few)
    found = _from_enough(sample, lambda: _bootstrapped(sample))
    return replace(found, no_pass=hidden) if hidden else found


def _from_enough(sample: Sample, interval: Callable[[], Estimate]) -> Estimate:
    """The interval, if 100 units and 20 that differ carry it."""
    differ, count = changed_groups((sample.engine != sample.reference).any(axis=1), sample.groups)
    if count < FEWEST_UNITS:
        return undecidable(_point(sample), f"{count} are too few, {FEWEST_UNITS} needed")
    if differ >= FEWEST_CHANGES:
        return interval()
    few = f"only {differ} of {count:,} differ from the float model"
    return _rarely_changed(sample, binomial.upper(differ, count, sample.alpha.to_pass), few, interval)


def _rarely_changed(sample: Sample, share: float, few: str, interval: Callable[[], Estimate]) -> Estimate:
    """With few differences the share of units that differ has an exact bound, and may still be small enough.

    The drop of a mean is at most that share times the span. For a metric of the corpus the share itself must be below
    the margin, beside the bootstrap: the same as the rule for 0/1 outcomes without a flip.
    """
    metric, why = sample.metric, f"{few}, {FEWEST_CHANGES} needed"
    span = metric.bounds[1] - metric.bounds[0]
    if metric.kind == "corpus":
        found = interval()
        return found if share < sample.margin and math.isfinite(span) else undecidable(found, found.undecidable or why)
    worst = -span * share
    return replace(_point(sample), low=worst) if worst > -sample.margin else undecidable(_point(sample), why)


def _point(sample: Sample) -> Estimate:
    aggregate = sample.metric.aggregate
    observed = sample.sign * (aggregate(sample.engine) - aggregate(sample.reference))
    return Estimate(n=len(sample.engine), observed=observed if math.isfinite(observed) else None)


def _bootstrapped(sample: Sample) -> Estimate:
    metric, units = sample.metric, len(sample.engine)
    ours, theirs = weighted(metric, sample.engine), weighted(metric, sample.reference)
    found = bootstrap.resample(
        lambda counts: sample.sign * (ours(counts) - theirs(counts)),
        units,
        groups=sample.groups,
        strata=None if metric.strata is None else sample.reference[:, metric.strata].astype(np.int64),
        seed=sample.seed,
    )
    if not math.isfinite(found.observed):
        return Estimate(n=units, undecidable=f"{metric.name} is undefined on these rows (a constant column?)")
    point = Estimate(n=units, observed=found.observed)
    if found.undefined > UNDEFINED:
        return undecidable(point, f"{metric.name} is undefined in {found.undefined:.1%} of the resamples")
    low, high = bootstrap.bounds(found, low_alpha=sample.alpha.to_pass, high_alpha=sample.alpha.to_fail)
    point = replace(
        point,
        low=low,
        high=high,
        p_fail=bootstrap.p_at_least(found, -sample.margin),
        spread=units * float(found.values.var()),
    )
    return guard_corpus(point, metric, found, sample.alpha, limit=-sample.margin)


def guard_corpus(
    estimate: Estimate, metric: Metric, found: bootstrap.Replicates, alpha: Alpha, *, limit: float
) -> Estimate:
    """The estimate of a metric that nothing bounds (RMSE), guarded by what each row (group) adds to it."""
    parts = bootstrap.parts(found)
    if parts is None or math.isfinite(metric.bounds[1] - metric.bounds[0]):
        return estimate
    groups = None if len(parts) == estimate.n else np.arange(len(parts), dtype=np.int64)
    return guard_unseen(estimate, parts, groups, alpha, limit=limit)


def weighted(metric: Metric, values: Floats) -> Callable[[Floats], Floats]:
    """The metric of resamples given as counts [b, n]; a metric without its own way is computed one by one."""
    many = metric.aggregate_weighted
    if many is not None:
        return lambda counts: many(values, counts)

    def one_by_one(counts: NDArray[np.float64]) -> Floats:
        return np.array([metric.aggregate(np.repeat(values, row.astype(np.int64), axis=0)) for row in counts])

    return one_by_one
