"""Promote engines of a finished run by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import PromotionError
from qpipe.flow.cells.claims import promotable, promoted_name
from qpipe.flow.finished.runs import find_cell, kept_uri, recall_run
from qpipe.records.pipeline import PromoteSpec

if TYPE_CHECKING:
    from qpipe.records.result import CellResult, Promoted
    from qpipe.store import Store
    from qpipe.tracking import Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteOrder:
    """What `qpipe promote` was asked for."""

    run_id: str
    cell: str | None = None
    alias: str | None = None
    expected: str | None = None
    force_reason: str | None = None


def promote_run(store: Store, order: PromoteOrder, *, tracking_uri: str | None) -> tuple[Promoted, ...]:
    """Promote the cells that the order names: those that passed, or any one cell by force.

    Raises:
        PromotionError: nothing that was named has passed, or the alias was moved by somebody else.
        ConfigError: no such run or cell.
    """
    from qpipe.tracking import connect

    kept = recall_run(store, order.run_id)
    spec = kept.pipeline.promote or PromoteSpec()
    cells = find_cell(kept.result, order.cell)
    if order.cell is None:
        cells = promotable(cells, spec)
    if not cells:
        raise PromotionError(
            f"no cell of run {kept.result.run_id} has passed its gates",
            hint='look at `qpipe report`; a single cell can be forced: --cell LABEL --force --reason "…"',
        )
    wanted = kept.pipeline.tracking
    tracker = connect(kept_uri(wanted, tracking_uri), wanted.experiment, folder=Path.cwd())
    return tuple(_promote(tracker, kept.result.mlflow_run_id, cell, spec, order) for cell in cells)


def _promote(
    tracker: Tracker, parent: str | None, cell: CellResult, spec: PromoteSpec, order: PromoteOrder
) -> Promoted:
    from qpipe.tracking import promote

    promoted = promote(
        tracker,
        cell,
        model_name=promoted_name(spec, cell.model, cell.recipe, cell.target),
        alias=spec.alias if order.alias is None else order.alias,
        expected=order.expected,
        force_reason=order.force_reason,
    )
    if parent is not None:
        tracker.note_promoted(parent, promoted)
    return promoted
