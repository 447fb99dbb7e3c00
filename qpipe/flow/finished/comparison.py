"""Compare two finished runs cell by cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.records.comparison import Pair, Standing
from qpipe.records.evidence import Evaluation

if TYPE_CHECKING:
    from qpipe.records.result import CellResult, RunResult


def compare_runs(before: RunResult, after: RunResult) -> tuple[Pair, ...]:
    """Every cell that either run has, in the order of the later one."""
    old, new = ({cell.label: standing(cell) for cell in run.cells} for run in (before, after))
    return tuple(Pair(cell=label, before=old.get(label), after=new.get(label)) for label in {**new, **old})


def standing(cell: CellResult) -> Standing:
    """What a run says of one cell."""
    evidence = cell.evidence
    evaluation = evidence.evaluation if evidence else None
    batch = evidence.first_batch if evidence else None
    ratio = batch.ratio if batch else None
    return Standing(
        status=cell.status,
        decision=cell.decision,
        metric=evaluation.value if isinstance(evaluation, Evaluation) else None,
        ratio=ratio.median if ratio else None,
        size_bytes=cell.engine.size_bytes if cell.engine else None,
        engine=cell.engine.digest if cell.engine else None,
    )
