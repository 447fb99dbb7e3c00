"""Tables for the terminal: one line a cell, one line a gate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from textwrap import indent
from typing import TYPE_CHECKING

from qpipe.records.evidence import Evaluation
from qpipe.records.result import CellResult, Promoted, RunResult, SearchTrial
from qpipe.records.verdict import Decision, Verdict
from qpipe.report.columns import columns
from qpipe.report.labels import label_lines

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
    from rich.table import Table

STYLE = {
    Decision.PASS: "bold green",
    Decision.FAIL: "bold red",
    Decision.INCONCLUSIVE: "bold yellow",
}
NOTHING = "–"
CACHED = " cached"
INDENT = "  "
ROOM = 12
"""Columns that names of cells have at least."""
WIDE = 120
"""Columns from which on the reasons of gates stand in the table itself."""


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return NOTHING if value is None else f"{value:.4g}"


def size(size_bytes: float | None) -> str:
    """Bytes in a unit that people read, e.g. `1.2 MB` (decimal)."""
    if size_bytes is None:
        return NOTHING
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} GB"


def decision_text(decision: Decision | None, otherwise: str = NOTHING) -> str:
    """The decision in rich markup."""
    return f"[{STYLE[decision]}]{decision.value}[/]" if decision else otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsView:
    """One line a cell: decision, metric of the float model and of the engine, latency, ratio, size.

    Where whole names have no room, a model's name stands once above its cells.
    """

    cells: tuple[CellResult, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose by the width there is."""
        from rich.text import Text

        names = ("verdict", "float → engine", "p50 ms", "× float", "size")
        rows = [_cell_row(cell, fewer) for cell, fewer in zip(self.cells, fewer_rows(self.cells), strict=True)]
        widths = [max(Text.from_markup(text).cell_len for text in column) for column in zip(names, *rows, strict=True)]
        table = columns("cell", *names, folds=("cell",), right=("p50 ms", "× float", "size"))
        self._fill(table, rows, room=max(options.max_width - sum(widths) - len(names), ROOM))
        yield table

    def _fill(self, table: Table, rows: Sequence[tuple[str, ...]], *, room: int) -> None:
        from rich.text import Text

        whole = all(len(cell.label) + len(_tail(cell)) <= room for cell in self.cells)
        model = None
        for cell, row in zip(self.cells, rows, strict=True):
            if not whole and cell.model != model:
                model = cell.model
                table.add_row(Text(label_lines(f"{model}/", room)))
            within = label_lines(f"{cell.recipe}/{cell.target}", room - len(INDENT), _tail(cell))
            shown = Text(cell.label + _tail(cell) if whole else indent(within, INDENT))
            shown.stylize("dim", len(shown) - len(_tail(cell)))
            table.add_row(shown, *row)


def fewer_rows(cells: Sequence[CellResult]) -> tuple[str, ...]:
    """` (128 rows)` for each cell that was evaluated on fewer rows than another one, else nothing."""
    found = [cell.evidence.evaluation if cell.evidence else None for cell in cells]
    rows = [one.rows if isinstance(one, Evaluation) else 0 for one in found]
    return tuple(f" ({count:,} rows)" if 0 < count < max(rows) else "" for count in rows)


def _cell_row(cell: CellResult, fewer: str) -> tuple[str, ...]:
    otherwise = "reference" if cell.status == "ok" else f"[red]{cell.status}[/]"
    return (
        decision_text(cell.decision, otherwise),
        _quality(cell) + fewer,
        *_speed(cell),
        size(cell.engine.size_bytes if cell.engine else None),
    )


def _tail(cell: CellResult) -> str:
    return CACHED if cell.cached else ""


def _quality(cell: CellResult) -> str:
    evidence = cell.evidence
    if evidence is None or not isinstance(evidence.evaluation, Evaluation):
        return NOTHING
    reference = evidence.reference.value if isinstance(evidence.reference, Evaluation) else None
    return f"{number(reference)} → {number(evidence.evaluation.value)}"


def _speed(cell: CellResult) -> tuple[str, str]:
    first = cell.evidence.first_batch if cell.evidence else None
    if first is None:
        return NOTHING, NOTHING
    p50 = next((percentile.value for name, percentile in first.latency_ms if name == "p50"), None)
    return number(p50), number(first.ratio.median if first.ratio else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatesView:
    """The gates of a cell: one line a gate; on a narrow terminal the reasons stand below."""

    cell: CellResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose by the width there is."""
        from rich.text import Text

        wide = options.max_width >= WIDE
        yield Text(label_lines(self.cell.label, options.max_width), style="italic")
        yield gates_table(self.cell, reasons=wide)
        if not wide:
            for verdict in self.cell.verdicts:
                yield f"  {_escaped(verdict.gate)}: {_reason(verdict)}"


def gates_table(cell: CellResult, *, reasons: bool = True) -> Table:
    """One line a gate, with every number that it decided from."""
    numbers, last = ("observed", "low", "high", "limit", "n"), ("reason",) if reasons else ()
    table = columns("gate", "verdict", *numbers, *last, folds=("gate", "reason"), right=numbers, gap=2)
    for verdict in cell.verdicts:
        table.add_row(*gate_row(verdict)[: None if reasons else -1])
    return table


def gate_row(verdict: Verdict) -> tuple[str, ...]:
    """The cells of one gate's line, in rich markup."""
    return (
        _escaped(verdict.gate) if verdict.required else f"{_escaped(verdict.gate)} (optional)",
        decision_text(verdict.decision),
        number(verdict.observed),
        number(verdict.low),
        number(verdict.high),
        number(verdict.limit),
        NOTHING if verdict.n is None else f"{verdict.n:,}",
        _reason(verdict),
    )


def _reason(verdict: Verdict) -> str:
    return _escaped(f"{verdict.reason}. {verdict.advice}" if verdict.advice else verdict.reason)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def render_result(result: RunResult) -> Group:
    """A run for the terminal: cells, gates of each, what was promoted, what to note."""
    from rich.console import Group
    from rich.markup import escape
    from rich.text import Text

    parts: list[RenderableType] = [CellsView(cells=result.cells)]
    for cell in result.cells:
        if cell.status != "ok":
            parts += ["", f"[red]{escape(cell.label)}: {cell.status}[/]: {escape(cell.reason)}"]
            parts += [f"hint: {escape(cell.hint)}"] if cell.hint else []
        if cell.verdicts:
            parts += ["", GatesView(cell=cell)]
    if result.search:
        parts += ["", SearchView(trials=result.search)]
    if result.promoted:
        parts += ["", Text(promoted_text(result.promoted), style="green")]
    parts += [f"[yellow]note:[/] {escape(warning)}" for warning in result.warnings]
    return Group(*parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchView:
    """Every candidate of a search, judged on the search rows, and why it was chosen or left."""

    trials: tuple[SearchTrial, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Numbers are whole; names and reasons share what is left of the width, names whole where that lets them."""
        from rich.text import Text

        names = ("float → engine", "× float", "size")
        rows = [
            (f"{number(one.reference)} → {number(one.value)}", number(one.ratio), size(one.size_bytes))
            for one in self.trials
        ]
        room = (
            options.max_width - sum(max(map(len, column)) for column in zip(names, *rows, strict=True)) - 1 - len(names)
        )
        labels = [f"{one.model}/{one.recipe}/{one.target}" for one in self.trials]
        room = max(min(max(map(len, labels), default=ROOM), room - room // 2), ROOM)
        table = columns("search", *names, "why", folds=("search", "why"), right=("× float", "size"))
        table.columns[0].width = room
        for one, label, row in zip(self.trials, labels, rows, strict=True):
            why = f"{one.reason} ({one.tried})" if one.tried else one.reason
            table.add_row(Text(label_lines(label, room), style="bold green" if one.chosen else ""), *row, _escaped(why))
        yield table


def promoted_text(promoted: Iterable[Promoted]) -> str:
    """One line a promotion."""
    return "\n".join(
        f"{one.model} version {one.version} is {one.alias}{f' ({one.note})' if one.note else ''}" for one in promoted
    )


def cell_text(cell: CellResult) -> str:
    """A cell and its gates as plain text, as it is logged beside the run."""
    text = as_text(CellsView(cells=(cell,)))
    if cell.reason:
        text += f"\n{cell.status}: {cell.reason}\n" + (f"hint: {cell.hint}\n" if cell.hint else "")
    if cell.verdicts:
        text += f"\n{cell.label}\n{as_text(gates_table(cell))}"
    return text


def as_text(renderable: RenderableType, width: int = 160) -> str:
    """What rich would print, without colours."""
    from rich.console import Console

    stream = StringIO()
    Console(file=stream, width=width, color_system=None, legacy_windows=False).print(renderable)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
