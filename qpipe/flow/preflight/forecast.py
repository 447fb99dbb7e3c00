"""What a run would do: which cells are in the store, what changed for those that are not, what they may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.flow.cells.ingredients import recall_slot
from qpipe.flow.cells.objects import is_built, is_prepared, recall_cell
from qpipe.flow.cells.refusals import Refused, recall_refusal
from qpipe.flow.preflight.checks import check_columns
from qpipe.flow.preflight.operators import lacking
from qpipe.planning.keys import changed
from qpipe.records.cell import Cell
from qpipe.records.engine import Unavailable

if TYPE_CHECKING:
    from qpipe.flow.workplace import Workplace


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """One line of `qpipe plan`."""

    cell: str
    prepare: str
    build: str
    measure: str
    cached: bool
    """Whether nothing of this cell has to run."""
    prepared: bool
    built: bool
    changed: tuple[str, ...]
    """Ingredients that differ from the last finished cell of these names; empty for a first run."""
    note: str
    """`cached`, `refused before: …`, `first run`, `changed: …`, or why nothing comes of it or not here."""
    seconds: float | None
    """Wall time of the last finished cell of these names without its profile; None where there was none."""
    engine_bytes: int | None
    memory_bytes: int
    """What its child processes may use at most."""


def forecast(workplace: Workplace) -> tuple[Forecast, ...]:
    """All cells in the order in which they would run. Reads the store; computes and writes nothing.

    Raises:
        DataError: columns, outputs or labels that a run would refuse before work, as far as files say them.
        ModelError: a model in which no recipe finds anything to quantize.
    """
    check_columns(workplace)
    return tuple(_forecast(cell, workplace) for cell in workplace.cells)


def _forecast(cell: Cell, workplace: Workplace) -> Forecast:
    store = workplace.store
    refused = recall_refusal(store, cell.key)
    cached = recall_cell(store, cell.key) is not None or refused is not None
    slot = recall_slot(store, cell)
    differing = () if slot is None or cached else changed(slot.ingredients, cell.measure.ingredients)
    return Forecast(
        cell=cell.label,
        prepare=cell.prepare.digest,
        build=cell.build.digest,
        measure=cell.measure.digest,
        cached=cached,
        prepared=is_prepared(store, cell),
        built=is_built(store, cell),
        changed=differing,
        note=_note(cell, workplace, refused, cached=cached, first=slot is None, differing=differing),
        seconds=0.0 if cached else slot.seconds if slot else None,
        engine_bytes=slot.engine_bytes if slot else None,
        memory_bytes=cell.target.limits.memory_bytes,
    )


def _note(
    cell: Cell,
    workplace: Workplace,
    refused: Refused | None,
    *,
    cached: bool,
    first: bool,
    differing: tuple[str, ...],
) -> str:
    if refused is not None:
        return f"refused before: {refused.reason}"
    if cached:
        return "cached"
    if missing := lacking(cell, workplace.registry):
        return f"nothing to quantize: {missing}"
    state = workplace.offers[cell.target.name].availability
    for verb, found in (("built", state.build), ("run", state.run)):
        if isinstance(found, Unavailable):
            return f"cannot be {verb} here: {found.reason}"
    if first:
        return "first run"
    return "changed: " + ", ".join(differing) if differing else "not finished last time"
