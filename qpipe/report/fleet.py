"""Many cells on the terminal: one line a model, one column a target, then what to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.records.fleet import Ended, Refusal
from qpipe.records.result import CellResult, RunResult
from qpipe.report.overview import MANY, TROUBLES, are_many, counted, glance, look_first, standing
from qpipe.report.table import NOTHING, STYLE, promoted_text, render_result, results_table, search_table

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

_STYLES = {decision.value: style for decision, style in STYLE.items()} | {"unavailable": "dim"}
BROKEN = "red"


def render_fleet(ended: Sequence[Ended]) -> Group:
    """All pipelines of one command: models × targets, what to look at first, what was promoted."""
    from rich.console import Group
    from rich.text import Text

    results = [one.end for one in ended if isinstance(one.end, RunResult)]
    refused = [one for one in ended if isinstance(one.end, Refusal)]
    cells = _told_apart(results)
    parts: list[RenderableType] = [*render_glance(cells)] if cells else []
    parts += ["", _refusals(refused)] if refused else []
    parts += _outcome(results)
    parts += [Text(f"{len(ended)} pipelines, {len(refused)} without a result; {counted(cells)}")]
    return Group(*parts)


def render_run(result: RunResult) -> Group:
    """One pipeline: with the gates of every cell, or at a glance where they are many."""
    from rich.console import Group

    if not are_many(result.cells):
        return render_result(result)
    more = f"the gates of every cell: qpipe report {result.run_id}"
    parts: list[RenderableType] = [results_table(result.cells), "", *render_glance(result.cells)]
    parts += ["", search_table(result.search)] if result.search else []
    return Group(*parts, *_outcome((result,)), f"{counted(result.cells)}; {more}")


def _told_apart(results: Sequence[RunResult]) -> tuple[CellResult, ...]:
    """All cells; a model of several pipelines has the pipeline's name before its own."""
    names = [model for result in results for model in {cell.model for cell in result.cells}]
    return tuple(
        replace(cell, model=f"{result.pipeline}/{cell.model}") if names.count(cell.model) > 1 else cell
        for result in results
        for cell in result.cells
    )


def _outcome(results: Sequence[RunResult]) -> list[RenderableType]:
    """What was promoted, and what to note."""
    from rich.text import Text

    promoted = _promoted(results)
    parts: list[RenderableType] = ["", Text(promoted, style="green")] if promoted else []
    return [*parts, *_notes(results), ""]


def _promoted(results: Sequence[RunResult]) -> str:
    promoted = tuple(one for result in results for one in result.promoted)
    if len(promoted) <= MANY:
        return promoted_text(promoted)
    return f"{len(promoted)} engines are {' or '.join(sorted({one.alias for one in promoted}))} now"


def _notes(results: Sequence[RunResult]) -> list[RenderableType]:
    from rich.text import Text

    notes = list(dict.fromkeys(warning for result in results for warning in result.warnings))
    more = [f"{len(notes) - TROUBLES} more: qpipe report RUN_ID"] if len(notes) > TROUBLES else []
    return [Text.assemble(("note: ", "yellow"), note) for note in (*notes[:TROUBLES], *more)]


def render_glance(cells: Sequence[CellResult]) -> tuple[RenderableType, ...]:
    """Models × targets, and what to look at first."""
    troubles = look_first(cells)
    parts: tuple[RenderableType, ...] = (_matrix(cells),)
    if not troubles:
        return parts
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("look first", no_wrap=True)
    table.add_column("cells", justify="right", no_wrap=True)
    table.add_column("why")
    for one in troubles[:TROUBLES]:
        hint = f"\nhint: {one.hint}" if one.hint else ""
        table.add_row(_word(one.word), str(len(one.labels)), Text(f"{one.what}: {one.named}{hint}"))
    if len(troubles) > TROUBLES:
        table.add_row("", str(sum(len(one.labels) for one in troubles[TROUBLES:])), "for other reasons")
    return (*parts, "", table)


def _matrix(cells: Sequence[CellResult]) -> Table:
    from rich.table import Table

    targets, lines = glance(cells)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True, overflow="fold")
    for target in targets:
        table.add_column(target, overflow="fold")
    for line in lines:
        table.add_row(line.name, *(_word(standing(cell)) if cell else NOTHING for cell in line.cells))
    return table


def _word(word: str) -> str:
    return f"[{_STYLES.get(word, BROKEN)}]{word}[/]"


def _refusals(refused: Sequence[Ended]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("not run", no_wrap=True, overflow="fold")
    table.add_column("why")
    for one in refused:
        if isinstance(one.end, Refusal):
            hint = f"\nhint: {one.end.hint}" if one.end.hint else ""
            table.add_row(Text(str(one.file)), Text(f"{one.end.message}{hint}"))
    return table
