"""`slices`: no slice of the data is worse than the float model by more than a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qpipe.gates.checks import STRICT, comparing_problem
from qpipe.gates.comparison import rows_advice, shown
from qpipe.gates.estimates.advice import SLICE_POWER
from qpipe.gates.estimates.difference import difference
from qpipe.gates.estimates.estimate import Estimate, judge, with_confidence
from qpipe.gates.statistics.multiple import holm, mcnemar_mid_p
from qpipe.gates.verdicts import AGREEMENT_ONLY, evaluation_kind, interval_reason, needing, noun_of, undecided
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.plugins.metric import Metric
from qpipe.records.verdict import Decision, SliceVerdict, Verdict

SCREEN_ALPHA = 0.05
ADVISED = 3
"""Slices that advice names, the worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """Each slice of the column `by` at most `margin` worse."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    by: str
    margin: float
    metric: str = ""
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    name: str
    estimate: Estimate
    decision: Decision
    screen: bool


@needing("slices", "evaluation")
def decide(outcomes: Outcomes, params: Slices, alpha: Alpha) -> Verdict:
    """PASS if every slice passes (each at alpha), FAIL if Holm's procedure fails any, else INCONCLUSIVE."""
    alpha = with_confidence(alpha, params.confidence)
    if params.by not in outcomes.slices:
        there = ", ".join(sorted(outcomes.slices)) or "none"
        return undecided("slices", f"the evidence has no slice column '{params.by}' (it has: {there})")
    found = _judge_slices(outcomes, params, alpha)
    if not found:
        return undecided("slices", f"there are no rows to slice by '{params.by}'")
    decision = _all(found)
    worst = min(found, key=_how_bad)
    print_as = shown(worst.estimate, params.margin, higher_is_better=outcomes.metric.higher_is_better)
    return Verdict(
        gate="slices",
        decision=decision,
        reason=_reason(found, decision, params, outcomes),
        observed=print_as.observed,
        low=print_as.low,
        high=print_as.high,
        limit=print_as.limit,
        n=sum(one.estimate.n for one in found),
        alpha=alpha.to_pass,
        kind=evaluation_kind(outcomes),
        advice=_advice(found, outcomes, params, alpha) if decision is Decision.INCONCLUSIVE else "",
        slices=tuple(_shown_slice(one, params.margin, outcomes.metric) for one in found),
        notes=() if outcomes.labelled else (AGREEMENT_ONLY,),
    )


def _judge_slices(outcomes: Outcomes, params: Slices, alpha: Alpha) -> tuple[_Slice, ...]:
    column = outcomes.slices[params.by]
    names = [str(name) for name in np.unique(column)]
    estimates = [difference(outcomes, params.margin, alpha, column == name) for name in names]
    judged = [judge(one, -params.margin, alpha) for one in estimates]
    failed = holm([0.0 if one.broken else one.p_fail for one in estimates], alpha.to_fail)
    screened = _screen(outcomes, params.by, names)
    return tuple(
        _Slice(name=name or "(empty)", estimate=one, decision=_after_holm(decision, rejected), screen=flag)
        for name, one, decision, rejected, flag in zip(names, estimates, judged, failed, screened, strict=True)
    )


def _after_holm(decision: Decision, rejected: bool) -> Decision:
    """With many slices one looks bad by chance: a slice fails only where Holm's procedure says so."""
    return Decision.INCONCLUSIVE if decision is Decision.FAIL and not rejected else decision


def _screen(outcomes: Outcomes, by: str, names: list[str]) -> tuple[bool, ...]:
    """Slices with surprisingly many losses: advice, never part of the decision; of rows in groups the first of each."""
    if not outcomes.labelled or outcomes.metric.kind != "binary":
        return (False,) * len(names)
    alone = slice(None) if outcomes.groups is None else np.unique(outcomes.groups, return_index=True)[1]
    change = (outcomes.engine[:, 0] - outcomes.reference[:, 0])[alone]
    worse = change < 0 if outcomes.metric.higher_is_better else change > 0
    better = (change != 0) & ~worse
    column = outcomes.slices[by][alone]
    return holm(
        [mcnemar_mid_p(int(better[column == one].sum()), int(worse[column == one].sum())) for one in names],
        SCREEN_ALPHA,
    )


def _all(found: tuple[_Slice, ...]) -> Decision:
    decisions = {one.decision for one in found}
    if Decision.FAIL in decisions:
        return Decision.FAIL
    return Decision.INCONCLUSIVE if Decision.INCONCLUSIVE in decisions else Decision.PASS


def _how_bad(one: _Slice) -> tuple[int, float]:
    order = (Decision.FAIL, Decision.INCONCLUSIVE, Decision.PASS)
    low = one.estimate.low
    return order.index(one.decision), -np.inf if low is None else low


def _reason(found: tuple[_Slice, ...], decision: Decision, params: Slices, outcomes: Outcomes) -> str:
    worst = min(found, key=_how_bad)
    print_as = shown(worst.estimate, params.margin, higher_is_better=outcomes.metric.higher_is_better)
    count = sum(one.decision is decision for one in found)
    total = f"{count} of {len(found)} slices by {params.by}"
    verb = {Decision.PASS: "pass", Decision.FAIL: "fail", Decision.INCONCLUSIVE: "are open"}[decision]
    lead = f"all {len(found)} slices by {params.by} pass" if decision is Decision.PASS else f"{total} {verb}"
    return f"{lead}; worst is {worst.name}: {interval_reason(worst.decision, worst.estimate, print_as)}"


def _advice(found: tuple[_Slice, ...], outcomes: Outcomes, params: Slices, alpha: Alpha) -> str:
    still_open = sorted((one for one in found if one.decision is Decision.INCONCLUSIVE), key=_how_bad)
    noun = noun_of(outcomes)
    sentences = [
        (one.name, rows_advice(outcomes, one.estimate, params.margin, alpha, noun=noun, power=SLICE_POWER))
        for one in still_open[:ADVISED]
    ]
    return "; ".join(f"slice {name}: {sentence}" for name, sentence in sentences if sentence)


def _shown_slice(one: _Slice, margin: float, metric: Metric) -> SliceVerdict:
    print_as = shown(one.estimate, margin, higher_is_better=metric.higher_is_better)
    return SliceVerdict(
        name=one.name,
        decision=one.decision,
        observed=print_as.observed,
        low=print_as.low,
        high=print_as.high,
        n=one.estimate.n,
        screen=one.screen,
    )


SLICES: GateType[Slices] = GateType(
    name="slices",
    summary="every slice of a column at most `margin` worse than the float model",
    params=Slices,
    decide=decide,
    needs=("evaluation",),
    check=comparing_problem,
)
