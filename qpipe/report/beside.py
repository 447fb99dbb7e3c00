"""Two targets of one recipe: what one of them leaves in float and the other does not, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable

from qpipe.records.evidence import BatchProfile, Evaluation
from qpipe.records.explanation import Step
from qpipe.records.result import CellResult

SMALL_MS = 0.1
"""Median latency of a float engine below which the fixed costs of operators weigh as much as their arithmetic."""


def compare_targets(cell: CellResult, cells: Iterable[CellResult]) -> tuple[str, ...]:
    """One line for each other target with the same model and recipe that has in float what this one has in integers.

    Empty where this cell's loss attribution has no step with such nodes.
    """
    found = cell.evidence.attribution if cell.evidence is not None else None
    if found is None:
        return ()
    pairs = zip(found.steps, (*found.steps[1:], None), strict=True)
    step, later = next(((step, later) for step, later in pairs if step.nodes), (None, None))
    if step is None:
        return ()
    others = (one for one in cells if (one.model, one.recipe) == (cell.model, cell.recipe) and one.key != cell.key)
    lines = (_line(cell, other, step, later, found.rows) for other in others)
    return tuple(line for line in lines if line)


def measured_speed(cell: CellResult) -> str:
    """The time at the first batch size beside the float engine's on that target; empty where there is none."""
    batch = cell.evidence.first_batch if cell.evidence is not None else None
    if batch is None or batch.ratio is None:
        return ""
    ratio, p50 = batch.ratio, dict(batch.latency_ms)["p50"].value
    found = f"{ratio.median:.3g} × the float engine's time ({ratio.low:.3g} … {ratio.high:.3g})"
    return f"{found}, {p50:.3g} ms at batch {batch.batch}{_slower(batch)}"


def _slower(batch: BatchProfile) -> str:
    """A sentence where the engine is shown to be slower; what a small model lacks is time to save, not kernels."""
    if batch.ratio is None or batch.ratio.low <= 1:
        return ""
    small = dict(batch.baseline_ms)["p50"].value < SMALL_MS
    why = ": a model this small has little to save, and starting operators and converting values may cost more"
    return f", slower than float{why if small else ''}"


def _line(cell: CellResult, other: CellResult, step: Step, later: Step | None, rows: int) -> str:
    left = _left_in_float(other)
    shared = [name for name in step.nodes if name in left]
    if not shared:
        return ""
    names = ", ".join(shared[:3]) + (" …" if len(shared) > 3 else "")
    line = f"{other.target} leaves {names} in float ({left[shared[0]]})"
    ours, theirs = _sqnr_db(cell), _sqnr_db(other)
    if ours is not None and theirs is not None:
        line += f": SQNR {theirs:.1f} dB there, {ours:.1f} dB here on the rows that judged them"
    if len(shared) < len(step.nodes):
        return f"{line}; the other nodes of step `{step.name}` are integers there too"
    cost = step.cost_of_nodes(later)
    return f"{line}; {cost} (first {rows} rows)" if cost else line


def _left_in_float(cell: CellResult) -> dict[str, str]:
    placement = cell.evidence.placement if cell.evidence is not None else None
    placement = placement or (cell.engine.placement if cell.engine is not None else None)
    return {node.name: node.reason for node in placement.left_in_float} if placement is not None else {}


def _sqnr_db(cell: CellResult) -> float | None:
    found = cell.evidence.evaluation if cell.evidence is not None else None
    return found.sqnr_db if isinstance(found, Evaluation) else None
