"""Advice in rows: how many more would decide."""

from __future__ import annotations

import math
from statistics import NormalDist

from qpipe.gates.estimates.estimate import Estimate
from qpipe.plugins.gate import Alpha

POWER = 0.8
SLICE_POWER = 0.98
"""Per slice, so that all of ten slices pass together in four of five runs."""
TOO_MANY = 20
"""More than so many times the present rows is not a practical size."""


def rows_needed(spread: float, difference: float, margin: float, *, alpha: float, power: float) -> float:
    """Rows at which a test at `alpha` decides with `power`: (z₁₋α + z_power)² · spread / (margin + difference)².

    Source: Tango 1998 (variance of a paired difference, ψ − d²); Lachin 1981 for the general form.
    """
    away = margin + difference
    if away == 0:
        return math.inf
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
    return z * z * spread / away**2


def flip_spread(flips: int, rows: int, difference: float) -> float:
    """ψ − d² with the flip rate ψ at its upper 80 % bound: few rows must not promise too much."""
    from qpipe.gates.statistics.binomial import upper

    return max(upper(flips, rows, 0.2) - difference**2, 0.0)


def more_rows(
    estimate: Estimate, margin: float, alpha: Alpha, *, at_least: int = 0, power: float = POWER, noun: str = "rows"
) -> str:
    """One sentence for an inconclusive comparison: more rows if the two are equal, and if the observed drop is real.

    Args:
        estimate: the difference, larger is better, with the spread of one row.
        margin: the drop that is allowed.
        alpha: error rates of the decision.
        at_least: rows that are needed in any case (no flip seen yet).
        power: chance that so many rows decide.
        noun: what a row is called here.
    """
    if estimate.observed is None or estimate.n == 0:
        return ""
    equal = max(rows_needed(estimate.spread, 0.0, margin, alpha=alpha.to_pass, power=power), at_least)
    drop = min(estimate.observed, 0.0)
    level = alpha.to_pass if drop > -margin else alpha.to_fail
    real = max(rows_needed(estimate.spread, drop, margin, alpha=level, power=power), at_least)
    if drop == 0.0:
        return f"{more(equal, estimate.n, noun)} would decide if the two are truly equal"
    if real > TOO_MANY * estimate.n:
        second = "if the observed drop is real, this is not decidable at a practical size"
    else:
        second = f"if the observed drop is real, {more(real, estimate.n, noun)}"
    return f"{more(equal, estimate.n, noun)} would decide if the two are truly equal; {second}"


def more(needed: float, present: int, noun: str) -> str:
    """`about 1,900 more rows`: what is missing, to two digits."""
    if needed > TOO_MANY * present:
        return f"more than {TOO_MANY} times as many {noun}"
    # A sample that is large enough already can still be unlucky: then a fresh one of the same size is the advice.
    if needed <= present:
        return f"a fresh sample of as many {noun}"
    return f"about {two_digits(needed - present):,} more {noun}"


def two_digits(count: float) -> int:
    """A count rounded up to two significant digits."""
    whole = math.ceil(count)
    step: int = 10 ** max(len(str(whole)) - 2, 0)
    return int(math.ceil(whole / step) * step)
