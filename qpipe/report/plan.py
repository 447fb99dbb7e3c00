"""The table of `qpipe plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from qpipe.records.fleet import Refusal
from qpipe.report.columns import columns, plain

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

SHORT = 8


class Line(Protocol):
    """What a line of the table needs to know of a cell."""

    @property
    def cell(self) -> str: ...  # noqa: D102
    @property
    def prepare(self) -> str: ...  # noqa: D102
    @property
    def build(self) -> str: ...  # noqa: D102
    @property
    def measure(self) -> str: ...  # noqa: D102
    @property
    def cached(self) -> bool: ...  # noqa: D102
    @property
    def prepared(self) -> bool: ...  # noqa: D102
    @property
    def built(self) -> bool: ...  # noqa: D102
    @property
    def note(self) -> str: ...  # noqa: D102
    @property
    def seconds(self) -> float | None: ...  # noqa: D102


def plan_table(lines: Iterable[Line]) -> Table:
    """One line a cell: its three keys (green where the store has what they name), and why it would run."""
    table = columns("cell", "prepare", "build", "measure", "last took", "state", folds=("state",))
    for line in lines:
        table.add_row(
            line.cell,
            _key(line.prepare, known=line.prepared),
            _key(line.build, known=line.built),
            _key(line.measure, known=line.cached),
            "–" if line.seconds is None else "nothing to do" if line.cached else f"{line.seconds:.1f} s",
            *plain(line.note),
        )
    return table


def plans_table(plans: Iterable[tuple[Path, Sequence[Line] | Refusal]]) -> Table:
    """One line a pipeline: how many cells, what of them is cached, what the others took, and why they would run.

    Why cells cannot be built or run here, or were refused before, and what stops several pipelines alike (a mistake in
    their base), is told below, once for all.
    """
    from rich.markup import escape

    names, numbers = ("pipeline", "cells", "cached", "last took", "state"), ("cells", "cached", "last took")
    table = columns(*names, folds=("state",), right=numbers)
    plans = tuple(plans)
    stops = Counter(plan for _, plan in plans if isinstance(plan, Refusal))
    for file, plan in plans:
        told = isinstance(plan, Refusal) and stops[plan] > 1
        table.add_row(str(file), *(("–", "–", "–", "[red]error[/], below") if told else _sum(plan)))
    every = [line for _, plan in plans if not isinstance(plan, Refusal) for line in plan]
    table.add_row(f"{len(plans)} pipelines", *_sum(every)[:-1], "", style="bold")
    for stop, count in stops.items():
        if count > 1:
            hint = f"\nhint: {stop.hint}" if stop.hint else ""
            table.add_row("", "", "", "", f"{count} pipelines: [red]error:[/] {escape(stop.message + hint)}")
    for why, count in Counter(line.note for line in every if _short(line) != line.note).items():
        table.add_row("", str(count), "", "", escape(why))
    return table


def _short(line: Line) -> str:
    """The note without a reason that many cells share."""
    if line.note.startswith("cannot be "):
        return "cannot be built or run here"
    return "refused before" if line.note.startswith("refused before: ") else line.note


def _sum(plan: Sequence[Line] | Refusal) -> tuple[str, str, str, str]:
    from rich.markup import escape

    if isinstance(plan, Refusal):
        return "–", "–", "–", f"[red]error:[/] {escape(plan.message)}"
    took = [line.seconds for line in plan if line.seconds is not None and not line.cached]
    notes = Counter(_short(line) for line in plan)
    cached = notes.pop("cached", 0)
    why = "; ".join(f"{count} {note}" for note, count in notes.items())
    return str(len(plan)), str(cached), f"{sum(took):.1f} s" if took else "–", escape(why)


def _key(digest: str, *, known: bool) -> str:
    short = digest[:SHORT]
    return f"[green]{short}[/]" if known else short
