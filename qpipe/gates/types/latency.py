"""`latency`: percentiles of wall time keep a limit in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qpipe.gates.checks import STRICT, confidence_problem, positive_problem
from qpipe.gates.estimates.estimate import with_confidence
from qpipe.gates.statistics.latency import exceedance, percentile_bounds, process_bound
from qpipe.gates.timing import trusted_batch
from qpipe.gates.verdicts import needing, number, undecided
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.plugins.metric import Metric
from qpipe.records.evidence import NotMeasured
from qpipe.records.verdict import Decision, SliceVerdict, Verdict

PERCENTILES: dict[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
FEWEST_SAMPLES: dict[str, int] = {"p50": 200, "p90": 200, "p95": 200, "p99": 500}


@dataclass(frozen=True, slots=True, kw_only=True)
class AtMost:
    """A limit in milliseconds."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    at_most_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """`p95: {at_most_ms: 5}`, several of them, or `percentile: p95` with `at_most_ms: 5`; at one batch size."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    p50: AtMost | None = None
    p90: AtMost | None = None
    p95: AtMost | None = None
    p99: AtMost | None = None
    percentile: str = "p95"
    at_most_ms: float | None = None
    batch: int | None = None
    confidence: float = 0.95

    @property
    def limits(self) -> dict[str, float]:
        """Limit in milliseconds by percentile."""
        given = {"p50": self.p50, "p90": self.p90, "p95": self.p95, "p99": self.p99}
        limits = {name: limit.at_most_ms for name, limit in given.items() if limit is not None}
        return limits if self.at_most_ms is None else {self.percentile: self.at_most_ms, **limits}


@needing("latency", "profile")
def decide(outcomes: Outcomes, params: Latency, alpha: Alpha) -> Verdict:
    """PASS if every percentile surely keeps its limit, FAIL if one surely does not."""
    alpha = with_confidence(alpha, params.confidence)
    profile = outcomes.evidence.profile
    if isinstance(profile, NotMeasured):
        return undecided("latency", f"not measured: {profile.reason}")
    found = trusted_batch(profile, params.batch)
    if isinstance(found, str):
        return undecided("latency", found, kind=profile.kind)
    samples = outcomes.latency_ms.get(found.batch, ())
    if not samples or not all(len(one) for one in samples):
        return undecided("latency", "not measured: the evidence holds no raw samples", kind=profile.kind)
    # Any of several percentiles may fail the gate, so each has its share of the error rate.
    share = Alpha(to_pass=alpha.to_pass, to_fail=alpha.to_fail / len(params.limits))
    judged = {name: _judge(samples, name, limit, share) for name, limit in params.limits.items()}
    return _together(judged, params, alpha, outcomes)


def _judge(samples: Sequence[NDArray[np.float64]], name: str, limit_ms: float, alpha: Alpha) -> SliceVerdict:
    """One percentile: Clopper–Pearson on the share of samples above the limit, or a bound over processes."""
    q = PERCENTILES[name]
    above = exceedance(samples, limit_ms, q, low_alpha=alpha.to_fail, high_alpha=alpha.to_pass)
    count = sum(len(one) for one in samples)
    value, low, _ = percentile_bounds(samples, q, alpha.to_fail)
    _, _, high = percentile_bounds(samples, q, alpha.to_pass)
    over_processes = process_bound(samples, q, alpha.to_pass)
    highs = [one for one in (high, over_processes) if one is not None and np.isfinite(one)]
    if count < FEWEST_SAMPLES[name]:
        decision = Decision.INCONCLUSIVE
    elif above.high <= 1 - q or over_processes <= limit_ms:
        decision = Decision.PASS
    else:
        decision = Decision.FAIL if above.low > 1 - q else Decision.INCONCLUSIVE
    return SliceVerdict(name=name, decision=decision, observed=value, low=low, high=min(highs, default=None), n=count)


def _together(judged: dict[str, SliceVerdict], params: Latency, alpha: Alpha, outcomes: Outcomes) -> Verdict:
    order = (Decision.FAIL, Decision.INCONCLUSIVE, Decision.PASS)
    worst = min(judged.values(), key=lambda one: order.index(one.decision))
    limit = params.limits[worst.name]
    profile = outcomes.evidence.profile
    bounds = f"{number(worst.low)} … {number(worst.high)} ms"
    return Verdict(
        gate="latency",
        decision=worst.decision,
        reason=f"{worst.name} is {number(worst.observed)} ms ({bounds}), at most {number(limit)} allowed",
        observed=worst.observed,
        low=worst.low,
        high=worst.high,
        limit=limit,
        n=worst.n,
        alpha=alpha.to_pass,
        kind=None if isinstance(profile, NotMeasured) else profile.kind,
        advice=_advice(worst, limit) if worst.decision is Decision.INCONCLUSIVE else "",
        slices=tuple(judged.values()) if len(judged) > 1 else (),
    )


def _advice(worst: SliceVerdict, limit: float) -> str:
    fewest = FEWEST_SAMPLES[worst.name]
    if worst.n < fewest:
        return f"{worst.name} needs {fewest} samples, about {fewest - worst.n:,} more"
    if worst.high is None and worst.observed is not None and worst.observed <= limit:
        return f"samples within a process are too alike to bound {worst.name}: more processes would help"
    return "more processes would narrow the interval"


def check(params: Latency, metric: Metric) -> str | None:
    """A known percentile and positive limits; a batch size from 1; a confidence above one half."""
    del metric
    if params.percentile not in PERCENTILES:
        return f"percentile is '{params.percentile}', it must be one of {', '.join(PERCENTILES)}"
    if not params.limits:
        return "latency needs a limit, e.g. p95: {at_most_ms: 5}"
    if params.batch is not None and params.batch < 1:
        return f"batch is {params.batch}, it must be at least 1"
    problems = (positive_problem(f"{name}.at_most_ms", limit) for name, limit in params.limits.items())
    return next((problem for problem in problems if problem), None) or confidence_problem(params.confidence)


LATENCY: GateType[Latency] = GateType(
    name="latency",
    summary="percentiles of wall time keep a limit in milliseconds",
    params=Latency,
    decide=decide,
    needs=("profile",),
    check=check,
)
