"""Paired 0/1 outcomes: gains and losses, by Tango's interval or by t over groups; and the flip rate without labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.estimates.advice import flip_spread
from qpipe.gates.estimates.estimate import Estimate
from qpipe.gates.estimates.sample import Sample, changed_groups, few_groups, mean_change, undecidable
from qpipe.gates.statistics import binomial, clusters, tango, unconditional
from qpipe.gates.statistics.student import standard_error
from qpipe.plugins.gate import Alpha
from qpipe.plugins.metric import Metric

FEW_SHARE = 0.5
"""Of FAIL's error rate, with few flips of rows in groups: their exact p is not known, and Tango's has up to .053."""


def paired_flips(sample: Sample) -> Estimate:
    """The difference of two shares of right rows."""
    return _rows(sample) if sample.groups is None else _groups(sample)


def _rows(sample: Sample) -> Estimate:
    rows, gains, losses = _counts(sample)
    few = gains + losses < tango.FEW_FLIPS
    share, exact = _exact(gains, losses, rows, sample, few=few)
    low, high, by_score = _by_score(gains, losses, rows, sample, share=share)
    p_fail = by_score if exact is None else exact
    observed = (gains - losses) / rows
    return Estimate(
        n=rows,
        observed=observed,
        low=low,
        high=high,
        p_fail=p_fail,
        spread=flip_spread(gains + losses, rows, observed),
        changed=(gains + losses) / rows,
        no_pass=_guard(losses, rows, sample, "rows") if few else "",
    )


def _counts(sample: Sample) -> tuple[int, int, int]:
    """Rows, gains and losses."""
    change = sample.change
    return len(change), int((change > 0).sum()), int((change < 0).sum())


def _exact(gains: int, losses: int, rows: int, sample: Sample, *, few: bool) -> tuple[float, float | None]:
    """The share of FAIL's error rate that Tango's bound takes, and the exact p where one may be needed.

    Where Tango's p is small enough to fail, the exact one decides, and the bound follows: share · rate is to Tango's p
    as the rate is to the exact one. A p far below the rate does not widen the bound for it.
    """
    p, rate = tango.p_worse(gains, losses, rows, sample.margin), sample.alpha.to_fail
    if p > rate or gains + losses >= unconditional.MOST_FLIPS:
        return (FEW_SHARE if few else 1.0), None
    exact = unconditional.p_worse(gains, losses, rows, sample.margin)
    share = min(1.0, p / exact)
    return (max(share, FEW_SHARE) if exact <= rate else share), exact


def _by_score(gains: float, losses: float, rows: float, sample: Sample, *, share: float) -> tuple[float, float, float]:
    """Tango's lower and upper bound, and the p of a failure; `share`: of FAIL's error rate, for the upper bound."""
    alpha = sample.alpha
    low, high = tango.bounds(gains, losses, rows, low_alpha=alpha.to_pass, high_alpha=alpha.to_fail * share)
    return low, high, min(1.0, tango.p_worse(gains, losses, rows, sample.margin) / share)


def _groups(sample: Sample) -> Estimate:
    """Rows of a group are alike: the wider of t over groups and Tango's interval; the guard counts groups with a loss.

    With few flips t is too narrow: where each of 3,000 rows stood twice and losses alone made up the margin, it passed
    in .075 of trials, with both in .054.
    """
    flipped, count = changed_groups(sample.change != 0, sample.groups)
    lost, _ = changed_groups(sample.change < 0, sample.groups)
    found = _widened(mean_change(sample), sample, few=flipped < tango.FEW_FLIPS)
    if few := few_groups(sample.groups):
        return undecidable(found, few)
    guard = "" if flipped >= tango.FEW_FLIPS else _guard(lost, count, sample, "groups")
    return replace(found, changed=flipped / count, per_group=found.n / count, no_pass=guard)


def _widened(found: Estimate, sample: Sample, *, few: bool) -> Estimate:
    """With Tango's bounds too, of counts divided by the design effect: so many rows they are worth.

    Source: Rao & Scott 1992, Biometrics 48:577–585.
    """
    rows, gains, losses = _counts(sample)
    worth = _worth(sample.change, sample.groups)
    share = FEW_SHARE if few else 1.0
    low, high, p_fail = _by_score(gains * worth, losses * worth, rows * worth, sample, share=share)
    return replace(
        found,
        low=low if found.low is None else min(low, found.low),
        high=high if found.high is None else max(high, found.high),
        p_fail=max(found.p_fail, p_fail),
    )


def _worth(change: NDArray[np.float64], groups: NDArray[np.int64] | None) -> float:
    """How many independent rows a row is worth, above 0 and at most 1."""
    clustered, count = standard_error(change, groups)
    alone, rows = standard_error(change)
    if not 0 < clustered < np.inf:
        return count / rows
    return min(1.0, (alone / clustered) ** 2)


def _guard(losses: int, count: int, sample: Sample, noun: str) -> str:
    """With few flips the score interval is anti-conservative: the losses alone must exclude the margin too."""
    if float(tango.guard(losses, count, sample.margin)) <= sample.alpha.to_pass:
        return ""
    lost = "none was lost" if losses == 0 else f"{losses} lost"
    needed = tango.rows_without_loss(sample.margin, sample.alpha.to_pass)
    return f"{count:,} {noun} are too few for so few flips ({lost}; without any loss {needed:,} are needed)"


def flip_rate(
    metric: Metric, agreement: NDArray[np.float64], groups: NDArray[np.int64] | None, alpha: Alpha
) -> Estimate:
    """Without labels the drop is at most the flip rate: this may pass, and can never fail."""
    rows = len(agreement)
    if not metric.flip_bound or not np.isin(agreement, (0.0, 1.0)).all():
        return Estimate(n=rows, undecidable=f"there are no labels, and without them {metric.name} cannot be bounded")
    if few := few_groups(groups):
        return Estimate(n=rows, undecidable=few)
    worth = clusters.worth(1 - agreement, groups, alpha.to_pass)
    rate = float(1 - agreement.mean())
    worst = binomial.upper(rate * worth, worth, alpha.to_pass)
    return Estimate(n=rows, observed=-rate, low=-worst, spread=flip_spread(round(rate * rows), rows, 0.0))
