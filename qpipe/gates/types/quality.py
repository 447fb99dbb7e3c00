"""`quality`: the engine is not worse than the float model as given by more than a margin."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from qpipe.gates.checks import STRICT, comparing_problem
from qpipe.gates.comparison import rows_advice, shown
from qpipe.gates.estimates.difference import difference
from qpipe.gates.estimates.estimate import judge, with_confidence
from qpipe.gates.statistics import binomial
from qpipe.gates.verdicts import AGREEMENT_ONLY, interval_verdict, needing, noun_of
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.records.evidence import Evaluation
from qpipe.records.verdict import Decision, Verdict

HOPELESS = 0.01
"""Share of the metric's span above its worst value up to which a float model proves nothing."""
NOTHING_TO_LOSE = "the float model itself gets next to nothing right, so that no engine could be worse"
LOOK_AT = "look at data.label, data.output, data.preprocess and the metric"


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
    verdict = interval_verdict(
        "quality",
        outcomes.metric.name,
        outcomes,
        found,
        shown(found, params.margin, higher_is_better=outcomes.metric.higher_is_better),
        alpha=alpha,
        decision=decision,
        advice=rows_advice(outcomes, found, params.margin, alpha, noun=noun_of(outcomes))
        if decision is Decision.INCONCLUSIVE
        else "",
    )
    if not outcomes.labelled:
        verdict = replace(verdict, notes=(AGREEMENT_ONLY,))
    if decision is Decision.PASS and (why := _nothing_to_lose(outcomes, alpha)):
        reason = f"{outcomes.metric.name}: {why}"
        return replace(verdict, decision=Decision.INCONCLUSIVE, reason=reason, advice=LOOK_AT)
    return verdict


def _nothing_to_lose(outcomes: Outcomes, alpha: Alpha) -> str:
    """Why the float model proves nothing, so that whatever the engine does would pass; or empty."""
    metric = outcomes.metric
    if not outcomes.labelled or not len(outcomes.reference):
        return ""
    value = metric.aggregate(outcomes.reference)
    low, high = metric.bounds
    away = value - low if metric.higher_is_better else high - value
    if math.isfinite(high - low) and away <= HOPELESS * (high - low):
        return NOTHING_TO_LOSE
    guessing = outcomes.evidence.reference.guessing if isinstance(outcomes.evidence.reference, Evaluation) else None
    if metric.kind == "binary" and guessing is not None:
        rows = len(outcomes.reference)
        if binomial.lower(value * rows, rows, alpha.to_pass) <= guessing:
            return f"the float model itself ({value:.4g}) is not shown to be better than guessing ({guessing:.4g})"
    return ""


QUALITY: GateType[Quality] = GateType(
    name="quality",
    summary="at most `margin` worse than the float model as given",
    params=Quality,
    decide=decide,
    needs=("evaluation",),
    check=comparing_problem,
)
