"""`speedup`: the engine is faster than the float engine on the same target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qpipe.gates.checks import STRICT, confidence_problem, positive_problem
from qpipe.gates.estimates.advice import POWER, rows_needed
from qpipe.gates.estimates.estimate import with_confidence
from qpipe.gates.statistics.latency import ratio_bounds
from qpipe.gates.timing import trusted_batch
from qpipe.gates.verdicts import needing, number, undecided
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.plugins.metric import Metric
from qpipe.records.evidence import NotMeasured
from qpipe.records.verdict import Decision, Verdict

FEWEST_PROCESSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """At least so many times as fast as the float engine, at one batch size (the first that was profiled)."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    at_least: float
    batch: int | None = None
    confidence: float = 0.95


@needing("speedup", "profile")
def decide(outcomes: Outcomes, params: Speedup, alpha: Alpha) -> Verdict:
    """PASS if the upper bound of engine / float is below 1 / s, FAIL if the lower one is above; t over processes."""
    alpha = with_confidence(alpha, params.confidence)
    profile = outcomes.evidence.profile
    if isinstance(profile, NotMeasured):
        return undecided("speedup", f"not measured: {profile.reason}")
    found = trusted_batch(profile, params.batch)
    if isinstance(found, str):
        return undecided("speedup", found, kind=profile.kind, limit=params.at_least)
    logs = np.asarray(found.log_ratios, dtype=np.float64)
    if len(logs) < FEWEST_PROCESSES or not np.isfinite(logs).all():
        why = f"not measured: {len(logs)} processes timed both engines, {FEWEST_PROCESSES} needed"
        return undecided("speedup", why, kind=profile.kind, limit=params.at_least)
    ratio, low, high = ratio_bounds(logs, low_alpha=alpha.to_fail, high_alpha=alpha.to_pass)
    decision = _judge(low, high, 1 / params.at_least)
    return Verdict(
        gate="speedup",
        decision=decision,
        reason=f"{number(1 / ratio)} times as fast ({number(1 / high)} … {number(1 / low)}), "
        f"{number(params.at_least)} wanted, batch {found.batch}"
        + (_granted(logs, params.at_least, alpha) if decision is Decision.PASS else ""),
        observed=1 / ratio,
        low=1 / high,
        high=1 / low,
        limit=params.at_least,
        n=len(logs),
        alpha=alpha.to_pass,
        kind=profile.kind,
        advice=_advice(logs, params.at_least, alpha) if decision is Decision.INCONCLUSIVE else "",
    )


def _judge(low: float, high: float, limit: float) -> Decision:
    if high < limit:
        return Decision.PASS
    return Decision.FAIL if low > limit else Decision.INCONCLUSIVE


def _granted(logs: np.ndarray[tuple[int, ...], np.dtype[np.float64]], wanted: float, alpha: Alpha) -> str:
    """How slow processes of a kind that was not met may be before the mean over all of them breaks the limit.

    With confidence 1 − α they are a share of no more than 1 − α^(1/n). No rule can see them in so few: with one process
    in ten 20 % slower and the mean at the limit, five passed in .23 (processes differ by 2.5 %) to .59 (by .5 %) of
    trials by t, and in .16 to .59 where the slowest process had to keep the limit too.
    """
    share = 1 - alpha.to_pass ** (1 / len(logs))
    slower = float(np.exp(min((-float(logs.mean()) - float(np.log(wanted))) / share, 20.0)))
    return (
        f", if processes of another kind (up to {share:.0%}, which {len(logs)} need not show) are less than "
        f"{number(slower)} times as slow as these"
    )


def _advice(logs: np.ndarray[tuple[int, ...], np.dtype[np.float64]], wanted: float, alpha: Alpha) -> str:
    """In processes: they are what varies."""
    faster = -float(logs.mean())
    level = alpha.to_pass if faster > np.log(wanted) else alpha.to_fail
    needed = rows_needed(float(logs.var(ddof=1)), faster, -float(np.log(wanted)), alpha=level, power=POWER)
    if not np.isfinite(needed) or needed > 20 * len(logs):
        return "the observed speed-up is too near to the one wanted to be decided at a practical size"
    # t with few degrees of freedom is wider than the normal law of the formula: two more processes make up for it.
    more = max(int(np.ceil(needed)) + 2 - len(logs), 1)
    return f"about {more} more processes would decide, if the observed speed-up is the true one"


def check(params: Speedup, metric: Metric) -> str | None:
    """A positive factor; a batch size from 1; a confidence above one half."""
    del metric
    if params.batch is not None and params.batch < 1:
        return f"batch is {params.batch}, it must be at least 1"
    return positive_problem("at_least", params.at_least) or confidence_problem(params.confidence)


SPEEDUP: GateType[Speedup] = GateType(
    name="speedup",
    summary="so many times as fast as the float engine on the same target",
    params=Speedup,
    decide=decide,
    needs=("profile",),
    check=check,
)
