"""What a run says aloud of its calibration rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpipe.records.remark import Remark
    from qpipe.records.result import CellResult

SHOWN = 3
"""Findings of one kind that are told of one set of cells; the result has all."""


def lint_warnings(results: Sequence[CellResult]) -> tuple[str, ...]:
    """One line for each finding of the calibration lint, with the cells that it touches."""
    cells: dict[Remark, list[str]] = {}
    for result in results:
        for remark in result.evidence.remarks if result.evidence else ():
            if remark.warns:
                cells.setdefault(remark, []).append(result.label)
    groups: dict[tuple[str, tuple[str, ...]], list[Remark]] = {}
    for remark, labels in cells.items():
        groups.setdefault((remark.kind, tuple(labels)), []).append(remark)
    return tuple(line for (_, labels), found in groups.items() for line in _lines(labels, found))


def _lines(labels: tuple[str, ...], found: list[Remark]) -> list[str]:
    where = f"calibration of {', '.join(labels)}"
    lines = [f"{where}: {_text(remark)}" for remark in found[:SHOWN]]
    rest = len(found) - SHOWN
    return [*lines, f"{where}: {rest} more like this: `qpipe explain` lists them"] if rest > 0 else lines


def _text(remark: Remark) -> str:
    return remark.message if remark.subject == "calibration" else f"'{remark.subject}': {remark.message}"
