"""`size`: the engine's files are small enough. Exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qpipe.gates.checks import STRICT, positive_problem
from qpipe.gates.verdicts import number, undecided
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.plugins.metric import Metric
from qpipe.records.verdict import Decision, Verdict

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Largest ratio to the float engine of the same target, largest size, or both."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    at_most_ratio: float | None = None
    at_most_mib: float | None = None


def decide(outcomes: Outcomes, params: Size, alpha: Alpha) -> Verdict:
    """PASS if every limit that is set is kept; the number shown is the first one's that is not."""
    del alpha
    evidence = outcomes.evidence
    engine, baseline = evidence.engine_size_bytes, evidence.baseline_size_bytes
    if engine <= 0:
        return undecided("size", "not measured: the engine has no files")
    if params.at_most_ratio is not None and baseline <= 0:
        return undecided("size", "not measured: there is no float engine to compare with")
    limits = [
        (value, limit, what)
        for value, limit, what in (
            (engine / max(baseline, 1), params.at_most_ratio, "of the float engine"),
            (engine / MIB, params.at_most_mib, "MiB"),
        )
        if limit is not None
    ]
    if not limits:
        return undecided("size", "no limit is set")
    value, limit, what = next((one for one in limits if one[0] > one[1]), limits[0])
    kept = value <= limit
    return Verdict(
        gate="size",
        decision=Decision.PASS if kept else Decision.FAIL,
        reason=f"{number(value)} {what}, at most {number(limit)} allowed ({engine:,} bytes)",
        observed=value,
        limit=limit,
        kind="measured",
    )


def check(params: Size, metric: Metric) -> str | None:
    """At least one limit, and positive ones."""
    del metric
    if params.at_most_ratio is None and params.at_most_mib is None:
        return "size needs at_most_ratio, at_most_mib or both"
    return positive_problem("at_most_ratio", params.at_most_ratio) or positive_problem(
        "at_most_mib", params.at_most_mib
    )


SIZE: GateType[Size] = GateType(
    name="size", summary="the engine's files are small enough", params=Size, decide=decide, check=check
)
