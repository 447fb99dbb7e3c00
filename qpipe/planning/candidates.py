"""What a search tries: the candidates of the pipeline, or every built-in recipe that the target has kernels for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import TargetError
from qpipe.planning.expand import make_cell, resolve_recipe
from qpipe.records.pipeline import RecipeSpec
from qpipe.records.recipe import BUILTIN_RECIPES, REFERENCE, SIZE_RECIPES, StageSpec

if TYPE_CHECKING:
    from qpipe.planning.offers import Offer
    from qpipe.plugins.registry import Registry
    from qpipe.records.cell import Cell
    from qpipe.records.model import Model
    from qpipe.records.pipeline import Pipeline, SearchSpec
    from qpipe.records.scheme import Scheme
    from qpipe.records.target import Target


def candidates(search: SearchSpec, scheme: Scheme) -> tuple[RecipeSpec, ...]:
    """Recipes to try on one target, at most as many as the budget allows, those of the pipeline first."""
    useful = (name for name in BUILTIN_RECIPES if name != REFERENCE and name not in SIZE_RECIPES)
    wanted = search.candidates or tuple(RecipeSpec(name=name) for name in useful)
    possible = tuple(spec for spec in wanted if bool(search.candidates) or _has_kernels(spec, scheme))
    return possible[: search.trials]


def mixed_candidates(
    spec: RecipeSpec, scheme: Scheme, nodes: tuple[str, ...], most: int | None
) -> tuple[RecipeSpec, ...]:
    """A static recipe with its 1, 2, 4, … most sensitive nodes left in float, up to half of them.

    Args:
        spec: the recipe that quantizes too much.
        scheme: of the target.
        nodes: patterns, the most sensitive first.
        most: how many trials the budget still has; None for any number.
    """
    stages = resolve_recipe(spec, scheme).stages
    counts = [2**power for power in range(len(nodes).bit_length()) if 2**power <= len(nodes) // 2]
    return tuple(
        RecipeSpec(
            name=f"{spec.name}-keep{count}",
            stages=tuple(_keeping(stage, nodes[:count]) if stage.name == "quantize" else stage for stage in stages),
        )
        for count in counts[:most]
    )


def equalized_candidates(spec: RecipeSpec, scheme: Scheme) -> tuple[RecipeSpec, ...]:
    """The recipe with cross-layer equalization before its calibration; none where it has that already, or no pass."""
    stages = resolve_recipe(spec, scheme).stages
    names = [stage.name for stage in stages]
    if "equalize" in names or "calibrate" not in names:
        return ()
    place = names.index("calibrate")
    even = StageSpec(name="equalize", params={"required": True})
    return (RecipeSpec(name=f"{spec.name}-equalized", stages=(*stages[:place], even, *stages[place:])),)


def _keeping(stage: StageSpec, nodes: tuple[str, ...]) -> StageSpec:
    kept = stage.params.get("keep_float", ())
    before = tuple(str(name) for name in kept) if isinstance(kept, list | tuple) else ()
    return StageSpec(name=stage.name, params={**stage.params, "keep_float": [*before, *nodes]})


def search_cells(
    pipeline: Pipeline,
    recipes: tuple[RecipeSpec, ...],
    model: Model,
    target: Target,
    registry: Registry,
    *,
    offer: Offer,
    profile: bool,
) -> tuple[Cell, ...]:
    """The float baseline and the candidates as cells that are judged on the search rows."""
    return tuple(
        make_cell(pipeline, model, spec, target, registry, offer=offer, profile=profile, role="search")
        for spec in (RecipeSpec(name=REFERENCE), *recipes)
    )


def _has_kernels(spec: RecipeSpec, scheme: Scheme) -> bool:
    try:
        resolve_recipe(spec, scheme)
    except TargetError:
        return False
    return True
