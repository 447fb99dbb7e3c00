"""Which cells claim which registered name: one of those that passed may take it, and rivals share the error rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.records.verdict import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpipe.records.cell import Cell
    from qpipe.records.pipeline import PromoteSpec
    from qpipe.records.result import CellResult


def promotable(results: Sequence[CellResult], spec: PromoteSpec) -> tuple[CellResult, ...]:
    """Cells that passed; of several that would take one name, the first in the pipeline's order."""
    chosen: dict[str, CellResult] = {}
    for result in results:
        if result.decision is Decision.PASS:
            chosen.setdefault(promoted_name(spec, result.model, result.recipe, result.target), result)
    return tuple(chosen.values())


def promoted_name(spec: PromoteSpec, model: str, recipe: str, target: str) -> str:
    """The registered name that a cell would take."""
    return spec.model.format(model=model, recipe=recipe, target=target)


def rivals(spec: PromoteSpec | None, cell: Cell, cells: Sequence[Cell]) -> int:
    """How many declared cells compete for the name that this one would take: the error rate is divided among them."""
    if spec is None:
        return 1
    name = promoted_name(spec, cell.model.name, cell.recipe.name, cell.target.name)
    names = [
        promoted_name(spec, other.model.name, other.recipe.name, other.target.name)
        for other in cells
        if not other.recipe.is_reference
    ]
    return max(1, names.count(name))
