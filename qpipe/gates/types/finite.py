"""`finite`: no output is NaN or infinite. Exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qpipe.gates.checks import STRICT
from qpipe.gates.verdicts import needing, undecided
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.records.evidence import NotMeasured
from qpipe.records.verdict import Decision, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Finite:
    """Nothing to set."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT


@needing("finite", "evaluation")
def decide(outcomes: Outcomes, params: Finite, alpha: Alpha) -> Verdict:
    """PASS if every row's outputs are finite."""
    del params, alpha
    found = outcomes.evidence.evaluation
    if isinstance(found, NotMeasured) or not found.rows:
        return undecided("finite", "there are no rows")
    bad = found.nonfinite_rows
    return Verdict(
        gate="finite",
        decision=Decision.FAIL if bad else Decision.PASS,
        reason=f"{bad:,} of {found.rows:,} rows have NaN or infinity" if bad else f"all {found.rows:,} rows are finite",
        observed=float(bad),
        limit=0.0,
        n=found.rows,
        kind=found.kind,
    )


FINITE: GateType[Finite] = GateType(
    name="finite", summary="no output is NaN or infinite", params=Finite, decide=decide, needs=("evaluation",)
)
