"""`memory`: loading and running the engine keeps a peak resident set. Exact, over processes of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qpipe.gates.checks import STRICT, positive_problem
from qpipe.gates.verdicts import needing, number, undecided
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.plugins.metric import Metric
from qpipe.records.evidence import NotMeasured
from qpipe.records.verdict import Decision, Verdict

MIB = 2**20
FEWEST_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Largest peak resident set in MiB."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    at_most_mib: float


@needing("memory", "profile")
def decide(outcomes: Outcomes, params: Memory, alpha: Alpha) -> Verdict:
    """PASS if every run stays within the limit, FAIL if none does, INCONCLUSIVE if the limit lies in their range."""
    del alpha
    profile = outcomes.evidence.profile
    runs = () if isinstance(profile, NotMeasured) else tuple(peak / MIB for peak in profile.peak_rss_bytes)
    if isinstance(profile, NotMeasured) or len(runs) < FEWEST_RUNS:
        return undecided("memory", f"not measured often enough: {len(runs)} runs, {FEWEST_RUNS} needed")
    low, high, limit = min(runs), max(runs), params.at_most_mib
    if high <= limit:
        decision, reason = Decision.PASS, f"all {len(runs)} runs peak at {number(high)} MiB or less"
    elif low > limit:
        decision, reason = Decision.FAIL, f"all {len(runs)} runs peak at {number(low)} MiB or more"
    else:
        decision, reason = Decision.INCONCLUSIVE, f"runs peak between {number(low)} and {number(high)} MiB"
    return Verdict(
        gate="memory",
        decision=decision,
        reason=f"{reason}, at most {number(limit)} allowed",
        observed=sorted(runs)[len(runs) // 2],
        low=low,
        high=high,
        limit=limit,
        n=len(runs),
        kind=profile.kind,
    )


def check(params: Memory, metric: Metric) -> str | None:
    """A positive limit."""
    del metric
    return positive_problem("at_most_mib", params.at_most_mib)


MEMORY: GateType[Memory] = GateType(
    name="memory",
    summary="peak resident set of loading and running the engine",
    params=Memory,
    decide=decide,
    needs=("profile",),
    check=check,
)
