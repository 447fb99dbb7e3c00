"""Many cells at a glance, in the HTML report: models × targets, each word a link, and what to look at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from qpipe.records.result import CellResult
from qpipe.report.html import anchor, head, mark, row
from qpipe.report.overview import NAMED, TROUBLES, Trouble, are_many, glance, look_first, standing
from qpipe.report.table import NOTHING


def glance_section(cells: Sequence[CellResult]) -> list[str]:
    """Nothing where there are few cells: their own table is short."""
    return [glances(cells, {cell.label: f"#{anchor(cell)}" for cell in cells})] if are_many(cells) else []


def glances(cells: Sequence[CellResult], links: Mapping[str, str]) -> str:
    """The section. `links`: where more is said of a cell, by its label."""
    targets, lines = glance(cells)
    ordered = sorted(lines, key=lambda line: line.is_quiet)  # what is in trouble first
    rows = "".join(row(escape(line.name), *(_linked(cell, links) for cell in line.cells)) for line in ordered)
    table = f'<div class="wide"><table>{head(("model", *targets))}<tbody>{rows}</tbody></table></div>'
    key = "<p><small>time, size: in parts of the float engine's on the same target</small></p>"
    return f"<section><h2>At a glance</h2>{_troubles(look_first(cells), links)}{table}{key}</section>"


def _linked(cell: CellResult | None, links: Mapping[str, str]) -> str:
    if cell is None:
        return NOTHING
    return f'<a class="plain" href="{escape(links[cell.label])}">{mark(standing(cell))}</a>{_beside_float(cell)}'


def _beside_float(cell: CellResult) -> str:
    if cell.evidence is None:
        return ""
    batch = cell.evidence.first_batch
    found = (("time", batch.ratio.median if batch and batch.ratio else None), ("size", cell.evidence.size_ratio))
    return "".join(f" <small>{value:.2f}&nbsp;×&nbsp;{what}</small>" for what, value in found if value is not None)


def _troubles(troubles: Sequence[Trouble], links: Mapping[str, str]) -> str:
    if not troubles:
        return ""
    rows = "".join(_trouble(one, links) for one in troubles[:TROUBLES])
    left = sum(len(one.labels) for one in troubles[TROUBLES:])
    more = row("", str(left), "for other reasons") if left else ""
    names = ("look first", "cells", "why")
    return f'<div class="wide"><table>{head(names)}<tbody>{rows}{more}</tbody></table></div>'


def _trouble(trouble: Trouble, links: Mapping[str, str]) -> str:
    first = trouble.labels[0]
    worst = f"{first}: {trouble.worst}" if trouble.worst else ""
    hint = "".join(f"<div><small>{escape(line)}</small></div>" for line in (worst, trouble.hint) if line)
    return row(mark(trouble.word), str(len(trouble.labels)), f"{escape(trouble.what)}: {_cells(trouble, links)}{hint}")


def _cells(trouble: Trouble, links: Mapping[str, str]) -> str:
    """A link to each of them, behind their names in short where they are many."""
    every = ", ".join(f'<a href="{escape(links[label])}">{escape(label)}</a>' for label in trouble.labels)
    if len(trouble.labels) <= NAMED:
        return every
    return f"<details><summary>{escape(trouble.named)}</summary>{every}</details>"
