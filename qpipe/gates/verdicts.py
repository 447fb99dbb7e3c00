"""Verdicts from estimates, and the words and signs that numbers are printed with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TypeVar

from qpipe.gates.comparison import Shown, rows_to_limit, shown_level
from qpipe.gates.estimates.estimate import Estimate, judge
from qpipe.plugins.gate import Alpha, Need, Outcomes
from qpipe.records.engine import Kind
from qpipe.records.evidence import Evaluation, NotMeasured, Profile
from qpipe.records.verdict import Decision, Verdict

P = TypeVar("P")
Decide = Callable[[Outcomes, P, Alpha], Verdict]

AGREEMENT_ONLY = "agreement-only"
"""Note of a verdict that passed without labels, because engine and float model agree."""


def needing(name: str, *needs: Need) -> Callable[[Decide[P]], Decide[P]]:
    """Let a gate decide only on evidence that was measured, and in a way that the pipeline accepts."""

    def wrap(decide: Decide[P]) -> Decide[P]:
        @wraps(decide)
        def decide_admitted(outcomes: Outcomes, params: P, alpha: Alpha) -> Verdict:
            return refuse(name, outcomes, needs) or decide(outcomes, params, alpha)

        return decide_admitted

    return wrap


def refuse(name: str, outcomes: Outcomes, needs: tuple[Need, ...]) -> Verdict | None:
    """INCONCLUSIVE where evidence that a gate needs is missing or of a kind that is not accepted, else None."""
    evidence = outcomes.evidence
    parts: list[Evaluation | Profile | NotMeasured] = []
    if "evaluation" in needs:
        parts.append(evidence.evaluation)
    if "profile" in needs:
        parts.append(evidence.profile)
    if "placement" in needs and evidence.placement is None:
        return undecided(name, "not measured: the backend reports no placement")
    for part in parts:
        if isinstance(part, NotMeasured):
            return undecided(name, f"not measured: {part.reason}")
        if part.kind not in outcomes.accept:
            return unaccepted(name, part.kind, outcomes.accept)
    if "evaluation" in needs and isinstance(evidence.reference, NotMeasured):
        return undecided(name, f"the float model was not measured: {evidence.reference.reason}")
    return None


def not_accepted(kind: Kind, accept: tuple[str, ...]) -> str:
    """Why evidence of that kind decides nothing."""
    return f"the evidence is {kind}, and this gate accepts only {' and '.join(accept)}"


def unaccepted(name: str, kind: Kind, accept: tuple[str, ...]) -> Verdict:
    """INCONCLUSIVE: evidence of a kind that the gate does not take, and the key that would let it."""
    advice = f"`accept: [{', '.join((*accept, kind))}]` in the gate lets it decide, where that is enough"
    return replace(undecided(name, not_accepted(kind, accept), kind=kind), advice=advice)


def undecided(name: str, reason: str, *, kind: Kind | None = None, limit: float | None = None) -> Verdict:
    """INCONCLUSIVE without numbers."""
    return Verdict(gate=name, decision=Decision.INCONCLUSIVE, reason=reason, kind=kind, limit=limit)


def level_verdict(
    gate: str, subject: str, outcomes: Outcomes, found: Estimate, limit: float, *, alpha: Alpha, higher: bool = True
) -> Verdict:
    """Of the engine's own level against a limit, both better when larger; `higher`: whether the metric's own is too."""
    decision = judge(found, limit, alpha)
    return interval_verdict(
        gate,
        subject,
        outcomes,
        found,
        shown_level(found, limit, higher_is_better=higher),
        alpha=alpha,
        decision=decision,
        advice=rows_to_limit(found, limit, alpha, noun=noun_of(outcomes)) if decision is Decision.INCONCLUSIVE else "",
    )


def interval_verdict(
    gate: str,
    subject: str,
    outcomes: Outcomes,
    found: Estimate,
    print_as: Shown,
    *,
    alpha: Alpha,
    decision: Decision,
    advice: str,
) -> Verdict:
    """Of an estimate from the evaluation, with its bounds as they are printed; `subject` is what was estimated."""
    return Verdict(
        gate=gate,
        decision=decision,
        reason=f"{subject}: {interval_reason(decision, found, print_as)}",
        observed=print_as.observed,
        low=print_as.low,
        high=print_as.high,
        limit=print_as.limit,
        n=found.n,
        alpha=alpha.to_pass,
        kind=evaluation_kind(outcomes),
        advice=advice,
    )


def evaluation_kind(outcomes: Outcomes) -> Kind | None:
    """How the evaluation came to be."""
    found = outcomes.evidence.evaluation
    return None if isinstance(found, NotMeasured) else found.kind


def noun_of(outcomes: Outcomes) -> str:
    """What one unit is called: a row, or a pair of them."""
    found = outcomes.evidence.evaluation
    return "rows" if isinstance(found, NotMeasured) or found.units >= found.rows else "pairs"


def number(value: float | None) -> str:
    """Four significant digits."""
    return "undefined" if value is None else f"{value:.4g}"


def signed(value: float | None) -> str:
    """Four significant digits with a sign."""
    return "undefined" if value is None else f"{value:+.4g}"


def interval_reason(decision: Decision, estimate: Estimate, print_as: Shown) -> str:
    """Why an interval decided as it did, in the metric's own direction and unit."""
    if estimate.broken or estimate.undecidable:
        return estimate.broken or estimate.undecidable
    low, high, limit = print_as.low, print_as.high, signed(print_as.limit)
    if low is None or high is None:
        bounds = f"the bound {signed(high if low is None else low)}"
    else:
        bounds = f"the interval {signed(low)} … {signed(high)}"
    match decision:
        case Decision.PASS:
            return f"{bounds} keeps the limit {limit}" + (f", if {estimate.granted}" if estimate.granted else "")
        case Decision.FAIL:
            return f"{bounds} lies wholly beyond the limit {limit}"
        case Decision.INCONCLUSIVE:
            return estimate.no_pass or f"{bounds} does not settle the limit {limit}"
