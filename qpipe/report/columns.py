"""Columns of tables on the terminal: numbers, names and keys stay whole however narrow it is, prose folds."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def columns(*names: str, folds: Collection[str], right: Collection[str] = (), gap: int = 1) -> Table:
    """A table without lines. `folds`: what goes on in the next line; `right`: numbers; `gap`: spaces between columns.

    A column that is cut off says something else: 0.0202 is 0.02, and a name cannot be typed. Rows are rich markup:
    text of others goes in by `plain`.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name not in folds, overflow="fold")
    return table


def plain(*texts: str) -> tuple[str, ...]:
    """Texts as cells: `[rtx]` in one is no style, and `[/conv1]` no end of one."""
    from rich.markup import escape

    return tuple(map(escape, texts))
