"""What every page of a report has: its frame, its notes and what was promoted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from qpipe.records.result import Promoted
from qpipe.report.overview import NAMED
from qpipe.report.style import STYLE


def framed(title: str, parts: Iterable[str]) -> str:
    """A page that needs nothing else. `parts`: HTML; the title is escaped here."""
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head><body><main>",
            *parts,
            "</main></body></html>",
        ]
    )


def notes(warnings: Iterable[str], labels: Iterable[str] = ()) -> list[str]:
    """A box for each warning; of cells (`labels`) that have the same one, one for all of them."""
    known = frozenset(labels)
    found: dict[str, list[str]] = {}
    for warning in warnings:
        label, _, said = warning.partition(": ")
        found.setdefault(said if label in known else warning, []).extend([label] if label in known else [])
    return [f'<div class="note">{_note(said, cells)}</div>' for said, cells in found.items()]


def _note(said: str, cells: Sequence[str]) -> str:
    named = escape(", ".join(cells))
    if len(cells) <= NAMED:
        return f"{named}: {escape(said)}" if cells else escape(said)
    return f"{escape(said)}<details><summary>{len(cells)} cells</summary>{named}</details>"


def promotions(promoted: Iterable[Promoted]) -> list[str]:
    """The engines that a model version stands for now; nothing where there is none."""
    lines = [
        f"<li><b>{escape(one.model)}</b> version {escape(one.version)} is <b>{escape(one.alias)}</b>"
        f" <code>{escape(one.engine[:12])}</code> {escape(one.note)}</li>"
        for one in promoted
    ]
    return [f"<section><h2>Promoted</h2><ul>{''.join(lines)}</ul></section>"] if lines else []
