"""What a recipe cannot work on: a forest of trees has no operator that runs on integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import ModelError
from qpipe.models.facts import read_facts

if TYPE_CHECKING:
    from qpipe.flow.workplace import Workplace
    from qpipe.plugins.registry import Registry
    from qpipe.records.cell import Cell
    from qpipe.records.model import Model


def check_operators(workplace: Workplace) -> None:
    """Make sure that some recipe has something to do in each model.

    Raises:
        ModelError: no recipe of the pipeline has, on any target.
    """
    for model in workplace.models:
        asked = [one for one in workplace.cells if one.model.digest == model.digest and one.recipe.stages]
        found = [lacking(cell, workplace.registry) for cell in asked]
        if found and all(found):
            raise ModelError(
                f"{model.name} has nothing that recipe {asked[0].recipe.name!r} could quantize: {found[0]}",
                hint=_instead(model, asked, workplace.registry),
            )


def lacking(cell: Cell, registry: Registry) -> str:
    """Which operators a stage of the recipe looks for in vain; empty where there is one for each.

    What a plugin's stage makes of the graph is not known, so that stages behind one are not asked.
    """
    has = read_facts(cell.model.file.path).operators
    for spec in cell.recipe.stages:
        needed = registry.stage(spec.name).operators
        if needed is not None and has.isdisjoint(needed(cell.scheme)):
            return _quantized(has) or f"it has none of {', '.join(needed(cell.scheme))}"
        if registry.code_of_stage(spec.name):
            break
    return ""


def _quantized(has: frozenset[str]) -> str:
    """That the operators are those of a quantized model; empty where they are not."""
    from qpipe.quant.graph import is_quantized

    found = sorted(filter(is_quantized, has))
    return f"it is quantized already ({', '.join(found)})" if found else ""


def _instead(model: Model, asked: list[Cell], registry: Registry) -> str:
    """The float model of a quantized one, or the stage that would find something, by the schemes of these cells."""
    from qpipe.quant.graph import FLOAT_MODEL

    has = read_facts(model.file.path).operators
    if _quantized(has):
        return FLOAT_MODEL
    for recipe, stage in (("int8", "quantize"), ("dynamic", "dynamic")):
        needed = registry.stage(stage).operators
        if needed is not None and any(not has.isdisjoint(needed(cell.scheme)) for cell in asked):
            return f"try recipe {recipe!r}"
    return "keep the float model, and leave it out of this pipeline"
