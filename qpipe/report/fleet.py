"""Many cells on the terminal: one line a model, one column a target, then what to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.records.fleet import Ended, Refusal
from qpipe.records.result import CellResult, RunResult
from qpipe.report.columns import columns
from qpipe.report.labels import AFTER_HYPHEN, filled, pieces
from qpipe.report.overview import (
    MANY,
    NAMED,
    TROUBLES,
    Line,
    are_many,
    counted,
    folded,
    glance,
    look_first,
    standing,
    told_apart,
)
from qpipe.report.table import NOTHING, STYLE, CellsView, SearchView, promoted_text, render_result

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
    from rich.table import Table

_STYLES = {decision.value: style for decision, style in STYLE.items()} | {"unavailable": "dim"}
BROKEN = "red"
OF_CALIBRATION = "calibration of "
"""How notes on the calibration rows of a model begin: of many models nearly each has one."""
SHORT = {"INCONCLUSIVE": "INCONCL", "unavailable": "n/a"}
"""Words of the matrix on a narrow terminal."""


def render_fleet(ended: Sequence[Ended]) -> Group:
    """All pipelines of one command: models × targets, what to look at first, what was promoted."""
    from rich.console import Group
    from rich.text import Text

    results = [one.end for one in ended if isinstance(one.end, RunResult)]
    refused = [one for one in ended if isinstance(one.end, Refusal)]
    cells = [cell for cells in told_apart(results) for cell in cells]
    parts: list[RenderableType] = [*render_glance(cells)] if cells else []
    parts += ["", _refusals(refused)] if refused else []
    parts += _outcome(results)
    parts += [
        Text(
            f"{len(ended)} pipeline{'s' if len(ended) != 1 else ''}, {len(refused)} without a result; {counted(cells)}"
        )
    ]
    return Group(*parts)


def render_run(result: RunResult) -> Group:
    """One pipeline: with the gates of every cell, or at a glance where they are many."""
    from rich.console import Group

    if not are_many(result.cells):
        return render_result(result)
    more = f"the gates of every cell: qpipe report {result.run_id}"
    parts: list[RenderableType] = [CellsView(cells=result.cells), "", *render_glance(result.cells)]
    parts += ["", SearchView(trials=result.search)] if result.search else []
    return Group(*parts, *_outcome((result,)), f"{counted(result.cells)}; {more}")


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

    told = list(dict.fromkeys(warning for result in results for warning in result.warnings))
    lint = [note for note in told if note.startswith(OF_CALIBRATION)] if len(results) > 1 else []
    notes = [note for note in told if note not in lint]
    shown = (
        *_first(notes, TROUBLES, "more: qpipe report RUN_ID"),
        *_first(lint, NAMED, "more on calibration: qpipe report RUN_ID"),
    )
    return [Text.assemble(("note: ", "yellow"), note) for note in shown]


def _first(notes: Sequence[str], most: int, rest: str) -> tuple[str, ...]:
    left = len(notes) - most
    return (*notes[:most], *((f"{left} {rest}",) if left > 0 else ()))


def render_glance(cells: Sequence[CellResult]) -> tuple[RenderableType, ...]:
    """Models × targets, and what to look at first."""
    troubles = look_first(cells)
    targets, lines = glance(cells)
    parts: tuple[RenderableType, ...] = (Matrix(targets=targets, lines=folded(lines)),)
    if not troubles:
        return parts
    from rich.text import Text

    table = columns("look first", "cells", "why", folds=("why",), right=("cells",))
    for one in troubles[:TROUBLES]:
        worst = f"\n{one.labels[0]}: {one.worst}" if one.worst else ""
        hint = f"\nhint: {one.hint}" if one.hint else ""
        table.add_row(_word(one.word), str(len(one.labels)), Text(f"{one.what}: {one.named}{worst}{hint}"))
    if len(troubles) > TROUBLES:
        table.add_row("", str(sum(len(one.labels) for one in troubles[TROUBLES:])), "for other reasons")
    return (*parts, "", table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One line a model, one column a target; as much in words as the terminal has room for."""

    targets: tuple[str, ...]
    lines: tuple[Line, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Whole names; else those of targets broken at their hyphens; else short words too."""
        for short, broken in ((False, False), (False, True), (True, True)):
            rows = [[_shown(cell, short=short) for cell in line.cells] for line in self.lines]
            heads = [_head(target, column) if broken else target for target, *column in zip(self.targets, *rows)]  # noqa: B905
            widths = [_width((head, *column)) for head, *column in zip(heads, *rows)]  # noqa: B905
            if sum(widths) + len(widths) + _width(["model", *(line.name for line in self.lines)]) <= options.max_width:
                break
        yield self._table(heads, rows)

    def _table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        table = columns("model", *heads, folds=heads)
        for line, row in zip(self.lines, rows, strict=True):
            cells = zip(line.cells, row, strict=True)
            table.add_row(line.name, *(_word(standing(cell), word) if cell else word for cell, word in cells))
        return table


def _shown(cell: CellResult | None, *, short: bool) -> str:
    if cell is None:
        return NOTHING
    word = standing(cell)
    return SHORT.get(word, word) if short else word


def _head(target: str, column: Sequence[str]) -> str:
    """The name in lines that are no wider than they must be beside the words below."""
    parts = pieces(target, AFTER_HYPHEN)
    return filled(parts, _width((*column, *parts)))


def _width(texts: Sequence[str]) -> int:
    return max(len(line) for text in texts for line in text.split("\n"))


def _word(word: str, shown: str = "") -> str:
    return f"[{_STYLES.get(word, BROKEN)}]{shown or word}[/]"


def _refusals(refused: Sequence[Ended]) -> Table:
    from rich.text import Text

    table = columns("not run", "why", folds=("why",))
    found: dict[Refusal, list[str]] = {}
    for one in refused:
        if isinstance(one.end, Refusal):
            found.setdefault(one.end, []).append(str(one.file))
    for why, files in found.items():
        more = [f"and {len(files) - NAMED} more"] if len(files) > NAMED else []
        hint = f"\nhint: {why.hint}" if why.hint else ""
        table.add_row(Text("\n".join((*files[:NAMED], *more))), Text(f"{why.message}{hint}"))
    return table
