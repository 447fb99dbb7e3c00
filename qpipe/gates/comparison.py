"""From a difference to a verdict in the metric's own direction and unit, with advice in rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qpipe.gates.estimates.advice import POWER, more, more_rows, rows_needed
from qpipe.gates.estimates.estimate import Estimate
from qpipe.gates.statistics.tango import rows_for_guard
from qpipe.plugins.gate import Alpha, Outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An estimate as it is printed: engine − float, lower is better where the metric says so."""

    observed: float | None
    low: float | None
    high: float | None
    limit: float


def shown(estimate: Estimate, margin: float, *, higher_is_better: bool) -> Shown:
    """Turn a difference (better when larger) back into the metric's own direction."""
    if higher_is_better:
        return Shown(observed=estimate.observed, low=estimate.low, high=estimate.high, limit=-margin)
    return Shown(observed=_minus(estimate.observed), low=_minus(estimate.high), high=_minus(estimate.low), limit=margin)


def rows_advice(
    outcomes: Outcomes, estimate: Estimate, margin: float, alpha: Alpha, *, noun: str, power: float = POWER
) -> str:
    """How many more rows would decide; empty where the sample says too little even for that."""
    if estimate.broken or estimate.observed is None or (estimate.undecidable and not estimate.spread):
        return ""
    exact = outcomes.metric.kind == "binary" or not outcomes.labelled
    guarded = rows_for_guard(estimate.changed, margin, alpha.to_pass, power) * estimate.per_group
    least = math.ceil(guarded) if exact else estimate.at_least
    return more_rows(estimate, margin, alpha, at_least=least, power=power, noun=noun)


def shown_level(estimate: Estimate, limit: float, *, higher_is_better: bool) -> Shown:
    """A level (better when larger) turned back into the metric's own direction."""
    if higher_is_better:
        return Shown(observed=estimate.observed, low=estimate.low, high=estimate.high, limit=limit)
    return Shown(observed=_minus(estimate.observed), low=_minus(estimate.high), high=_minus(estimate.low), limit=-limit)


def rows_to_limit(estimate: Estimate, limit: float, alpha: Alpha, *, noun: str) -> str:
    """How many more rows would tell a level from its limit, if the observed one is the true one."""
    if estimate.observed is None or estimate.undecidable or estimate.broken:
        return ""
    level = alpha.to_pass if estimate.observed > limit else alpha.to_fail
    needed = rows_needed(estimate.spread, estimate.observed, -limit, alpha=level, power=POWER)
    needed = max(needed, estimate.at_least if estimate.no_pass else 0)
    return f"if the observed value is the true one, {more(needed, estimate.n, noun)} would decide"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
