"""What a run says aloud of its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.records.evidence import Profile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpipe.flow.workplace import Workplace
    from qpipe.records.remark import Remark
    from qpipe.records.result import CellResult

SHOWN = 3
"""Findings of one kind that are told of one set of cells; the result has all."""


def remarks(workplace: Workplace, results: tuple[CellResult, ...]) -> tuple[str, ...]:
    """What plugins say of finished cells, which no gate can pass, which change their answers, what a look costs."""
    from qpipe.gates import is_change, look_advice

    said = [warning for result in results for warning in workplace.registry.cell_finished(result)]
    ungated = [
        f"no required gate judges {result.label}: it stays INCONCLUSIVE"
        for result in results
        if result.decision is not None and not any(verdict.required for verdict in result.verdicts)
    ]
    lying = [
        f"{result.label}: the outputs of the timed run differ from those that were evaluated"
        for result in results
        if result.evidence and isinstance(profile := result.evidence.profile, Profile) and not profile.outputs_match
    ]
    looks = [
        f"{result.label}: {advice}"
        for result in results
        if result.look and result.alpha and result.decision
        if (advice := look_advice(result.look, result.alpha, result.decision))
    ]
    changed = [
        f"{result.label}: {verdict.gate}: {note}"
        for result in results
        for verdict in result.verdicts
        for note in verdict.notes
        if is_change(note)
    ]
    idle = all(result.status == "ok" and result.decision is None for result in results)
    empty = ("only float models ran: there was nothing to judge",) if idle else ()
    return (*said, *ungated, *lying, *looks, *changed, *lint_warnings(results), *empty)


def lint_warnings(results: Sequence[CellResult]) -> tuple[str, ...]:
    """One line for each finding on calibration or answers, with the cells that it touches."""
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
    where = f"{'calibration of ' if found[0].of_calibration else ''}{', '.join(labels)}"  # all are of one kind
    lines = [f"{where}: {remark.line}" for remark in found[:SHOWN]]
    rest = len(found) - SHOWN
    return [*lines, f"{where}: {rest} more like this: `qpipe explain` lists them"] if rest > 0 else lines
