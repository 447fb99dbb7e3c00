"""`quality`: the engine is not worse than the float model as given by more than a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qpipe.gates.checks import STRICT, comparing_problem
from qpipe.gates.comparison import rows_advice, shown
from qpipe.gates.difference import difference
from qpipe.gates.estimate import judge, with_confidence
from qpipe.gates.verdicts import AGREEMENT_ONLY, evaluation_kind, interval_reason, needing, noun_of
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.records.verdict import Decision, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """At most `margin` worse, in the metric's own unit, with the confidence of each one-sided bound."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    margin: float
    metric: str = ""
    """The pipeline's metric, which may be repeated here."""
    confidence: float = 0.95


@needing("quality", "evaluation")
def decide(outcomes: Outcomes, params: Quality, alpha: Alpha) -> Verdict:
    """PASS if the lower bound of engine − float is above −margin, FAIL if the upper one is below it."""
    alpha = with_confidence(alpha, params.confidence)
    found = difference(outcomes, params.margin, alpha)
    decision = judge(found, -params.margin, alpha)
    print_as = shown(found, params.margin, higher_is_better=outcomes.metric.higher_is_better)
    noun = noun_of(outcomes)
    undecided = decision is Decision.INCONCLUSIVE
    return Verdict(
        gate="quality",
        decision=decision,
        reason=f"{outcomes.metric.name}: {interval_reason(decision, found, print_as)}",
        observed=print_as.observed,
        low=print_as.low,
        high=print_as.high,
        limit=print_as.limit,
        n=found.n,
        alpha=alpha.to_pass,
        kind=evaluation_kind(outcomes),
        advice=rows_advice(outcomes, found, params.margin, alpha, noun=noun) if undecided else "",
        notes=() if outcomes.labelled else (AGREEMENT_ONLY,),
    )


QUALITY: GateType[Quality] = GateType(
    name="quality",
    summary="at most `margin` worse than the float model as given",
    params=Quality,
    decide=decide,
    needs=("evaluation",),
    check=comparing_problem,
)
