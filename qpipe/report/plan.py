"""The table of `qpipe plan`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
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
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("cell", "prepare", "build", "measure", "last took", "state"):
        table.add_column(name, no_wrap=name != "state", overflow="fold")
    for line in lines:
        table.add_row(
            line.cell,
            _key(line.prepare, known=line.prepared),
            _key(line.build, known=line.built),
            _key(line.measure, known=line.cached),
            "–" if line.seconds is None else "nothing to do" if line.cached else f"{line.seconds:.1f} s",
            line.note,
        )
    return table


def _key(digest: str, *, known: bool) -> str:
    short = digest[:SHORT]
    return f"[green]{short}[/]" if known else short
