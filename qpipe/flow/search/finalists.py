"""Who may be a search's finalist: good enough on the search rows, and for speed, shown to be faster than float."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qpipe.records.result import SearchTrial

if TYPE_CHECKING:
    from qpipe.plugins.metric import Metric
    from qpipe.records.engine import Placement
    from qpipe.records.pipeline import Pipeline

ALIKE = 0.03
"""Candidates this close in speed, and within the interval of the fastest, are told apart by their SQNR instead."""
UNDEFINED = "its metric on the search rows is undefined (no labels, or outputs that never vary)"
SHOWN = 2
"""Nodes left in float that a reason names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a candidate may be chosen: no worse than the margin on the search rows; for speed, faster than float."""

    metric: Metric
    margin: float
    objective: str

    def objection(self, trial: SearchTrial) -> str:
        """Why this candidate cannot be the finalist, or an empty string."""
        if trial.value is None or trial.reference is None:
            return trial.reason if trial.size_bytes is None else trial.missing or UNDEFINED
        if self.is_lossy(trial):
            return f"loses {self.loss(trial):.4g} on the search rows, {self.margin:.4g} allowed"
        if trial.fails:
            return f"would fail {trial.fails}"
        return self._slowness(trial) if self.objective == "latency" else ""

    def _slowness(self, trial: SearchTrial) -> str:
        if trial.ratio is None:
            return "its latency was not measured" + (f": {trial.missing}" if trial.missing else "")
        if self.is_slow(trial):
            return f"not faster than float: {trial.ratio:.3g} of its latency ({trial.reason})"
        if trial.ratio_high is not None and trial.ratio_high >= 1:
            most = f"{trial.ratio:.3g} of its latency, but up to {trial.ratio_high:.3g} with 95 % confidence"
            return f"not shown to be faster than float: {most} ({trial.reason})"
        return ""

    def loss(self, trial: SearchTrial) -> float:
        """How much worse than the float model, in the metric's unit; NaN where it was not measured."""
        if trial.value is None or trial.reference is None:
            return float("nan")
        return (trial.reference - trial.value) * (1.0 if self.metric.higher_is_better else -1.0)

    def is_lossy(self, trial: SearchTrial) -> bool:
        """Whether it was measured and loses more than the margin."""
        return self.loss(trial) > self.margin

    def is_slow(self, trial: SearchTrial) -> bool:
        """Whether speed is wanted, and it was measured to be no faster than float."""
        return self.objective == "latency" and trial.ratio is not None and trial.ratio >= 1

    def rank(self, trial: SearchTrial) -> float:
        """Smaller is better."""
        found = trial.ratio if self.objective == "latency" else trial.size_bytes
        return float("inf") if found is None else float(found)


def search_rule(pipeline: Pipeline, metric: Metric, objective: str) -> Rule:
    """The rule of a pipeline: its tightest quality margin."""
    margins = [gate.params.get("margin") for gate in pipeline.gates if gate.type == "quality"]
    numbers = [float(margin) for margin in margins if isinstance(margin, int | float)]
    return Rule(metric=metric, margin=min(numbers, default=float("inf")), objective=objective)


def choose(rule: Rule, trials: list[SearchTrial]) -> tuple[tuple[SearchTrial, ...], SearchTrial | None]:
    """All trials with why each was chosen or left, and the best of those that may be chosen."""
    judged = tuple(_with_objection(rule, trial) for trial in trials)
    fit = [trial for trial in judged if trial.chosen]
    if not fit:
        return judged, None
    best = _best(rule, fit)
    return tuple(_beside(rule, best, trial) for trial in judged), best


def _beside(rule: Rule, best: SearchTrial, trial: SearchTrial) -> SearchTrial:
    """A trial that would do as well, with why the best was preferred; all others as they are."""
    if trial is best or not trial.chosen:
        return trial
    return replace(trial, chosen=False, reason=_why_not(rule, best, trial))


def _best(rule: Rule, fit: list[SearchTrial]) -> SearchTrial:
    """The first by rank; for speed, of all as fast as far as was measured, the one closest to the float model."""
    leader = min(fit, key=rule.rank)
    if rule.objective != "latency" or leader.ratio is None or leader.ratio_high is None:
        return leader
    as_fast = min(leader.ratio_high, leader.ratio * (1 + ALIKE))
    peers = [trial for trial in fit if trial.ratio is not None and trial.ratio <= as_fast]
    return max(peers, key=_closeness)


def _why_not(rule: Rule, best: SearchTrial, trial: SearchTrial) -> str:
    """What the best has over another that would do: nothing is called faster that was not measured so."""
    if rule.rank(best) > rule.rank(trial):
        return f"{best.recipe} is as fast as far as was measured, and closer to the float model"
    if rule.objective != "latency":
        return f"{best.recipe} is {'as small' if best.size_bytes == trial.size_bytes else 'smaller'}"
    if best.ratio is None or trial.ratio is None:
        return f"{best.recipe} is better"
    if trial.ratio <= best.ratio * (1 + ALIKE):
        return f"{best.recipe} is as fast, and no further from the float model"
    found = f"{best.recipe} measured faster: {best.ratio:.3g} of float's latency, here {trial.ratio:.3g}"
    surely = best.ratio_high is not None and best.ratio_high < trial.ratio
    return found if surely else f"{found}; not beyond doubt, it may be up to {best.ratio_high or best.ratio:.3g}"


def _closeness(trial: SearchTrial) -> float:
    """SQNR in dB; outputs without one are the float model's own, or not finite: then the metric has suffered too."""
    if trial.sqnr_db is not None:
        return trial.sqnr_db
    return float("inf") if trial.value == trial.reference else float("-inf")


def _with_objection(rule: Rule, trial: SearchTrial) -> SearchTrial:
    objection = rule.objection(trial)
    return replace(trial, chosen=not objection, reason=objection or "the best that is good enough")


def placement_reason(placement: Placement | None) -> str:
    """What ran in integer, and why the rest did not."""
    if placement is None:
        return "its placement is unknown"
    left = placement.left_in_float
    names = "; ".join(f"{node.name} ({node.op}): {node.reason}" for node in left[:SHOWN])
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    counts = f"{placement.integer} of {placement.integer + placement.float} quantizable nodes run in integer"
    return f"{counts}; in float: {names}{more}" if names else counts
