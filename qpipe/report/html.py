"""Pieces of HTML tables; what goes in is escaped already, but for heads."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision


def head(names: Iterable[str]) -> str:
    """The head of a table, escaped here."""
    return f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr></thead>"


def row(*cells: str) -> str:
    """One row of a table."""
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def anchor(cell: CellResult) -> str:
    """The place of a cell in the page of its run. Keys name none: recipes of the same stages share one."""
    return quote(cell.label)


def whole(text: str) -> str:
    """A few words that stay in one line."""
    return f'<span class="whole">{escape(text)}</span>'


def counted(count: int, what: str) -> str:
    """`1 remark`, `2 remarks`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def badge(decision: Decision) -> str:
    """A verdict in its colour."""
    return f'<span class="badge {decision.value.lower()}">{decision.value}</span>'


def mark(word: str) -> str:
    """Decisions and whatever broke as badges; what is not here is no trouble of the cell's."""
    if word in {decision.value for decision in Decision}:
        return badge(Decision(word))
    quiet = word in ("unavailable", "reference")
    return f"<small>{escape(word)}</small>" if quiet else f'<span class="badge fail">{escape(word)}</span>'
