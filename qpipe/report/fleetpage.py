"""The report of several runs: one page with all cells at a glance, which leads to the page of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from qpipe.records.result import CellResult, RunResult
from qpipe.report.frame import framed, notes, promotions
from qpipe.report.glance import glances
from qpipe.report.html import anchor, head, mark, row
from qpipe.report.overview import told_apart, words_counted
from qpipe.report.table import NOTHING


def fleet_page(results: Sequence[RunResult], pages: Mapping[str, str]) -> str:
    """The page. `pages`: where that of a run is, by the run's id, seen from this one."""
    apart = told_apart(results)
    cells = [cell for found in apart for cell in found]
    links = {
        shown.label: f"{pages[result.run_id]}#{anchor(cell)}"
        for result, found in zip(results, apart, strict=True)
        for cell, shown in zip(result.cells, found, strict=True)
    }
    title = f"{len(results)} runs"
    return framed(
        title,
        [
            f"<header><h1>{title}</h1><p>{_counts(cells)}</p></header>",
            *([glances(cells, links)] if cells else []),
            _runs(results, pages),
            *promotions(one for result in results for one in result.promoted),
            *notes(
                dict.fromkeys(warning for result in results for warning in result.warnings),
                [cell.label for result in results for cell in result.cells],
            ),
        ],
    )


def _runs(results: Sequence[RunResult], pages: Mapping[str, str]) -> str:
    rows = "".join(
        row(
            f'<a href="{escape(pages[one.run_id])}">{escape(one.pipeline)}</a>',
            f"<code>{escape(one.run_id)}</code>",
            f"<code>{escape(one.mlflow_run_id)}</code>" if one.mlflow_run_id else "<small>not logged</small>",
            str(one.exit_code),
            _counts(one.cells),
        )
        for one in results
    )
    names = ("pipeline", "run", "MLflow run", "exit code", "cells")
    return f'<section><h2>Runs</h2><div class="wide"><table>{head(names)}<tbody>{rows}</tbody></table></div></section>'


def _counts(cells: Sequence[CellResult]) -> str:
    return " ".join(f"{mark(word)} {count}" for word, count in words_counted(cells)) or NOTHING
