"""Reports as files: one HTML page of a run and its plots; of several runs one page more, with all at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qpipe.records.result import CellResult, RunResult
    from qpipe.report import Plots
    from qpipe.store import Store


def draw(cells: Sequence[CellResult], store: Store, folder: Path) -> Plots:
    """Draw the plots of these cells into `folder`."""
    from qpipe.report import write_plots

    evidence = {cell.key: store.folder(cell.evidence.digest) for cell in cells if cell.evidence is not None}
    return write_plots(tuple(cells), evidence, folder)


def write_report(result: RunResult, store: Store, folder: Path, plots: Plots | None = None) -> tuple[Path, ...]:
    """Write `report.html` into `folder`, and the plots of the run where they were not drawn before.

    Returns their paths, the page first.
    """
    from qpipe.flow.finished.explanation import explained
    from qpipe.report import write_run_report

    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw(result.cells, store, folder) if plots is None else plots
    return write_run_report(result, drawn, folder, explained(store, result.cells))


def write_reports(results: Sequence[RunResult], store: Store, folder: Path) -> tuple[Path, ...]:
    """Write the report of each run into a folder of its id, and `report.html` of all beside them.

    Returns their paths, the page of all first.
    """
    from qpipe.report import fleet_page

    written = [write_report(result, store, folder / result.run_id) for result in results]
    page = folder / "report.html"
    pages = {result.run_id: f"{result.run_id}/{files[0].name}" for result, files in zip(results, written, strict=True)}
    page.write_text(fleet_page(results, pages), encoding="utf-8")
    return (page, *(file for files in written for file in files))
