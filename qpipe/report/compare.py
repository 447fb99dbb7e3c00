"""The table of `qpipe compare`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qpipe.records.comparison import Pair, Standing
from qpipe.report.columns import columns, plain
from qpipe.report.table import NOTHING, decision_text, number, size

if TYPE_CHECKING:
    from rich.table import Table


def compare_table(pairs: Iterable[Pair]) -> Table:
    """One line a cell; what did not change is printed once."""
    folds = ("cell", "verdict", "metric", "× float", "size", "engine")  # `was → now` in two lines
    table = columns(*folds, folds=folds)
    for pair in pairs:
        old, new = _texts(pair.before), _texts(pair.after)
        cells = (was if was == now else f"{was} → {now}" for was, now in zip(old, new, strict=True))
        table.add_row(*plain(pair.cell), *cells)
    return table


def _texts(one: Standing | None) -> tuple[str, ...]:
    if one is None:
        return ("absent", NOTHING, NOTHING, NOTHING, NOTHING)
    verdict = decision_text(one.decision, "reference" if one.status == "ok" else one.status)
    return (verdict, number(one.metric), number(one.ratio), size(one.size_bytes), (one.engine or NOTHING)[:8])
