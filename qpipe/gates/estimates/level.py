"""The engine's own level of something, without comparison: a share, a mean, or a metric of the whole sample."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.estimates.classes import hidden_loss, rare_class, unseen_loss
from qpipe.gates.estimates.estimate import Estimate
from qpipe.gates.estimates.losses import guard_rare, guard_unseen
from qpipe.gates.estimates.means import FEWEST_UNITS, UNDEFINED, guard_corpus, weighted
from qpipe.gates.estimates.sample import few_groups
from qpipe.gates.statistics import binomial, bootstrap, clusters, skewness, student
from qpipe.plugins.gate import Alpha
from qpipe.plugins.metric import Metric

Floats = NDArray[np.float64]
Groups = NDArray[np.int64] | None


def share(hits: Floats, groups: Groups, alpha: Alpha) -> Estimate:
    """The share of ones by Clopper–Pearson, at the effective size where rows of a group are alike."""
    observed = float(hits.mean())
    if few := few_groups(groups):
        return Estimate(n=len(hits), observed=observed, undecidable=few)
    to_pass = clusters.worth(hits, groups, alpha.to_pass)
    to_fail = clusters.worth(hits, groups, alpha.to_fail, careful=False)
    return Estimate(
        n=len(hits),
        observed=observed,
        low=binomial.lower(observed * to_pass, to_pass, alpha.to_pass),
        high=binomial.upper(observed * to_fail, to_fail, alpha.to_fail),
        p_fail=0.0,
        spread=_bernoulli_spread(observed, to_pass) * len(hits) / to_pass,
    )


def mean(
    values: Floats,
    groups: Groups,
    alpha: Alpha,
    *,
    limit: float,
    bounds: tuple[float, float],
    sign: float = 1.0,
) -> Estimate:
    """The mean of scores by Student's t; better when larger after `sign`, as `limit` is.

    Between `bounds` a row could be as bad as the worst: rows that would show such rare ones are needed for a PASS.
    """
    count = len(values) if groups is None else len(np.unique(groups))
    if count < FEWEST_UNITS:
        return Estimate(n=len(values), undecidable=f"{count} are too few, {FEWEST_UNITS} needed")
    signed, (worst, best) = sign * values, bounds if sign > 0 else (-bounds[1], -bounds[0])
    low, high = skewness.bounds(signed, groups, low_alpha=alpha.to_pass, high_alpha=alpha.to_fail)
    error, _ = student.standard_error(values, groups)
    observed = float(signed.mean())
    found = Estimate(n=len(values), observed=observed, low=low, high=high, p_fail=0.0, spread=len(values) * error**2)
    if not math.isfinite(best - worst):
        return guard_unseen(found, signed, groups, alpha, limit=limit)
    if not limit < best:
        return found
    return guard_rare(found, signed - best, groups, alpha, margin=best - limit, largest=best - worst)


def corpus(metric: Metric, values: Floats, groups: Groups, alpha: Alpha, *, seed: int, limit: float) -> Estimate:
    """A metric of the whole sample by bootstrap over groups; better when larger, as `limit` is."""
    sign = 1.0 if metric.higher_is_better else -1.0
    count = len(values) if groups is None else len(np.unique(groups))
    if count < FEWEST_UNITS:
        return Estimate(n=len(values), undecidable=f"{count} are too few, {FEWEST_UNITS} needed")
    if rare := rare_class(metric, values, groups):
        return Estimate(n=len(values), undecidable=rare)
    aggregate = weighted(metric, values)
    found = bootstrap.resample(
        lambda counts: sign * aggregate(counts),
        len(values),
        groups=groups,
        strata=None if metric.strata is None else values[:, metric.strata].astype(np.int64),
        seed=seed,
    )
    if not np.isfinite(found.observed) or found.undefined > UNDEFINED:
        return Estimate(n=len(values), undecidable=f"{metric.name} is undefined on these rows")
    low, high = bootstrap.bounds(found, low_alpha=alpha.to_pass, high_alpha=alpha.to_fail)
    few = (metric, values, groups, found.observed - limit, alpha.to_pass)
    estimate = Estimate(
        n=len(values),
        observed=found.observed,
        low=low,
        high=high,
        p_fail=0.0,
        spread=len(values) * float(found.values.var()),
        no_pass=hidden_loss(*few) or unseen_loss(*few),
    )
    return guard_corpus(estimate, metric, found, alpha, limit=limit)


def _bernoulli_spread(observed: float, worth: float) -> float:
    """p(1 − p) with the rarer outcome at its upper 80 % bound: few rows must not promise too much."""
    rarer = min(observed, 1 - observed)
    p = min(binomial.upper(rarer * worth, worth, 0.2), 0.5)
    return p * (1 - p)
