"""`floor`: the engine's metric itself reaches a value, whatever the float model has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qpipe.gates.checks import STRICT, confidence_problem, metric_problem
from qpipe.gates.estimates import level
from qpipe.gates.estimates.estimate import Estimate, with_confidence
from qpipe.gates.estimates.sample import real_groups
from qpipe.gates.verdicts import level_verdict, needing
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.plugins.metric import Metric
from qpipe.records.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The metric is at least, or where lower is better at most, so much."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    at_least: float | None = None
    at_most: float | None = None
    metric: str = ""
    confidence: float = 0.95


@needing("floor", "evaluation")
def decide(outcomes: Outcomes, params: Floor, alpha: Alpha) -> Verdict:
    """PASS if the bound of the engine's metric keeps the limit, FAIL if the other bound misses it."""
    alpha = with_confidence(alpha, params.confidence)
    higher = outcomes.metric.higher_is_better
    wanted = params.at_least if higher else params.at_most
    limit = math.nan if wanted is None else (wanted if higher else -wanted)
    return level_verdict(
        "floor", outcomes.metric.name, outcomes, _level(outcomes, alpha, limit), limit, alpha=alpha, higher=higher
    )


def _level(outcomes: Outcomes, alpha: Alpha, limit: float) -> Estimate:
    metric, values = outcomes.metric, outcomes.engine
    if not outcomes.labelled:
        return Estimate(n=len(outcomes.agreement), undecidable="there are no labels")
    if not len(values):
        return Estimate(n=0, undecidable="there are no rows")
    bad = int((~np.isfinite(values)).any(axis=1).sum())
    if bad:
        why = f"the engine's outputs are not finite for {bad:,} of {len(values):,}"
        return Estimate(n=len(values), undecidable=why if np.isnan(values).any() else "", broken=_broken(values, why))
    groups = real_groups(outcomes.groups)
    match metric.kind:
        case "binary":
            return level.share(values[:, 0], groups, alpha)
        case "score":
            sign = 1.0 if metric.higher_is_better else -1.0
            return level.mean(values[:, 0], groups, alpha, limit=limit, bounds=metric.bounds, sign=sign)
        case "corpus":
            return level.corpus(metric, values, groups, alpha, seed=outcomes.seed, limit=limit)


def _broken(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], why: str) -> str:
    return "" if np.isnan(values).any() else why


def check(params: Floor, metric: Metric) -> str | None:
    """The limit is given in the metric's own direction and lies inside its range."""
    wanted, other = ("at_least", "at_most") if metric.higher_is_better else ("at_most", "at_least")
    value = params.at_least if metric.higher_is_better else params.at_most
    spare = params.at_most if metric.higher_is_better else params.at_least
    if spare is not None or value is None:
        better = "higher" if metric.higher_is_better else "lower"
        return f"floor of {metric.name} needs {wanted}, not {other}: {better} is better"
    low, high = metric.bounds
    if not (math.isfinite(value) and low <= value <= high):
        return f"{wanted} is {value:g}, but {metric.name} lies between {low:g} and {high:g}"
    return metric_problem(params.metric, metric) or confidence_problem(params.confidence)


FLOOR: GateType[Floor] = GateType(
    name="floor",
    summary="the engine's metric itself reaches a value",
    params=Floor,
    decide=decide,
    needs=("evaluation",),
    check=check,
)
