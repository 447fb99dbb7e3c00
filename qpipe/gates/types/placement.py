"""`placement`: quantizable nodes really run as integer kernels, where they were asked to. Exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qpipe.gates.checks import STRICT
from qpipe.gates.verdicts import needing, number, undecided
from qpipe.plugins.gate import Alpha, GateType, Outcomes
from qpipe.plugins.metric import Metric
from qpipe.records.verdict import Decision, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementLimits:
    """Smallest share of quantizable nodes in integer; most nodes on another provider or device."""

    __pydantic_config__: ClassVar[dict[str, str]] = STRICT

    at_least_integer_share: float | None = None
    elsewhere: int = 0


@needing("placement", "placement")
def decide(outcomes: Outcomes, params: PlacementLimits, alpha: Alpha) -> Verdict:
    """FAIL if a node ran elsewhere or too few ran in integer, else PASS."""
    del alpha
    placement, wanted = outcomes.evidence.placement, params.at_least_integer_share
    if placement is None:
        return undecided("placement", "not measured: the backend reports no placement")
    if placement.elsewhere > params.elsewhere:
        reason = f"{placement.elsewhere} nodes ran on another provider or device, {params.elsewhere} allowed"
        return _exact(Decision.FAIL, reason, float(placement.elsewhere), float(params.elsewhere), None)
    nodes = placement.integer + placement.float
    if wanted is None:
        reason = f"{placement.elsewhere} nodes ran elsewhere, {params.elsewhere} allowed"
        return _exact(Decision.PASS, reason, float(placement.elsewhere), float(params.elsewhere), nodes)
    if nodes == 0:
        return undecided("placement", "the graph has no quantizable node", limit=wanted)
    share = placement.integer / nodes
    left = "; ".join(f"{node.name} ({node.op}): {node.reason}" for node in placement.left_in_float[:3])
    reason = f"{placement.integer} of {nodes} quantizable nodes run in integer ({number(share)})"
    if share < wanted and left:
        reason += f"; in float: {left}"
    return _exact(Decision.PASS if share >= wanted else Decision.FAIL, reason, share, wanted, nodes)


def _exact(decision: Decision, reason: str, observed: float, limit: float, nodes: int | None) -> Verdict:
    return Verdict(gate="placement", decision=decision, reason=reason, observed=observed, limit=limit, n=nodes)


def check(params: PlacementLimits, metric: Metric) -> str | None:
    """A share between 0 and 1, a count from 0."""
    del metric
    share = params.at_least_integer_share
    if share is not None and not 0 < share <= 1:
        return f"at_least_integer_share is {share:g}, it must lie above 0 and be at most 1"
    return None if params.elsewhere >= 0 else f"elsewhere is {params.elsewhere}, it counts nodes from 0"


PLACEMENT: GateType[PlacementLimits] = GateType(
    name="placement",
    summary="quantizable nodes run as integer kernels, and none elsewhere than asked",
    params=PlacementLimits,
    decide=decide,
    needs=("placement",),
    check=check,
)
