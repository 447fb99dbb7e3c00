"""`agreement`: the engine says the same as the float model as given; needs no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qpipe.gates.checks import STRICT, confidence_problem, share_problem
from qpipe.gates.estimates import level
from qpipe.gates.estimates.estimate import Estimate, with_confidence
from qpipe.gates.estimates.sample import real_groups
from qpipe.gates.verdicts import level_verdict, needing
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.plugins.metric import Metric
from qpipe.records.verdict import Verdict

NO_DIRECTION = (
    "the judged output is one number a row, whose cosine is its sign: judge its error instead (mae, with the float "
    "model's outputs as labels where there are no others)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The share of rows with the same top class, or the mean cosine of the outputs, is at least so much."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    at_least: float
    confidence: float = 0.95


@needing("agreement", "evaluation")
def decide(outcomes: Outcomes, params: Agreement, alpha: Alpha) -> Verdict:
    """Clopper–Pearson for classes, Student's t for cosines."""
    alpha = with_confidence(alpha, params.confidence)
    return level_verdict(
        "agreement", "agreement", outcomes, _level(outcomes, params.at_least, alpha), params.at_least, alpha=alpha
    )


def _level(outcomes: Outcomes, limit: float, alpha: Alpha) -> Estimate:
    values, groups = outcomes.agreement, real_groups(outcomes.groups)
    if not len(values):
        return Estimate(n=0, undecidable="there are no rows")
    if np.isnan(values).all():
        return Estimate(n=len(values), undecidable=NO_DIRECTION)
    if not np.isfinite(values).all():
        return Estimate(n=len(values), undecidable="agreement is not finite")
    if outcomes.metric.classifies:
        return level.share(values, groups, alpha)
    return level.mean(values, groups, alpha, limit=limit, bounds=(-1.0, 1.0))


def check(params: Agreement, metric: Metric) -> str | None:
    """A share of rows, or a cosine: below 1, which no finite sample could show."""
    del metric
    return share_problem("at_least", params.at_least) or confidence_problem(params.confidence)


AGREEMENT: GateType[Agreement] = GateType(
    name="agreement",
    summary="the engine says the same as the float model (top class, or cosine); needs no labels",
    params=Agreement,
    decide=decide,
    needs=("evaluation",),
    check=check,
)
