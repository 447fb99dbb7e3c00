"""Finalists among the cells that meet the gate rows, and what a search asks of them there."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from qpipe.records.verdict import GateSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpipe.flow.workplace import Workplace
    from qpipe.records.cell import Cell

GATE = "faster"
"""Name of the gate that a search for speed brings."""


def with_finalists(workplace: Workplace, finalists: tuple[Cell, ...]) -> Workplace:
    """The cells that meet the gate rows, each once: a finalist may be what the pipeline demands anyway.

    One that was chosen for its speed must show it there too, by a measurement that did not choose it.
    """
    pipeline, demanded = workplace.pipeline, {cell.key for cell in workplace.cells}
    new = tuple(cell for cell in finalists if cell.key not in demanded)
    if pipeline.search is not None and pipeline.search.objective == "latency" and finalists:
        slow = [cell for cell in finalists if not any(_asks_speed(gate, cell) for gate in pipeline.gates)]
        pipeline = replace(pipeline, gates=(*pipeline.gates, *_speed_gates(pipeline.gates, slow)))
    return replace(workplace, pipeline=pipeline, cells=(*workplace.cells, *new))


def _asks_speed(gate: GateSpec, cell: Cell) -> bool:
    wanted = gate.params.get("at_least")
    enough = isinstance(wanted, int | float) and wanted >= 1
    return (
        gate.type == "speedup"
        and gate.required
        and enough
        and gate.applies(recipe=cell.recipe.name, target=cell.target.name)
    )


def _speed_gates(gates: Iterable[GateSpec], cells: Iterable[Cell]) -> tuple[GateSpec, ...]:
    taken = {gate.name for gate in gates}
    names = (name for number in count(1) if (name := GATE if number == 1 else f"{GATE}{number}") not in taken)
    targets: dict[str, list[str]] = {}
    for cell in cells:
        targets.setdefault(cell.target.name, []).append(cell.recipe.name)
    return tuple(
        GateSpec(name=next(names), type="speedup", params={"at_least": 1.0}, recipes=tuple(recipes), targets=(target,))
        for target, recipes in targets.items()
    )
