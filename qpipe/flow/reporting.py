"""The report of a run as files: one HTML page and its plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from qpipe.records.result import RunResult
    from qpipe.store import Store


def write_report(result: RunResult, store: Store, folder: Path) -> tuple[Path, ...]:
    """Write `report.html` and the plots of a run into `folder`; returns their paths, the page first."""
    from qpipe.flow.explaining import explained
    from qpipe.report import write_run_report

    evidence = {cell.key: store.folder(cell.evidence.digest) for cell in result.cells if cell.evidence is not None}
    return write_run_report(result, evidence, folder, explained(store, result.cells))
