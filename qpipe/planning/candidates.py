"""What a search tries: the candidates of the pipeline, or every built-in recipe that the target has kernels for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.planning.expand import resolve_recipe
from qpipe.prepare import has_kernels
from qpipe.records.pipeline import RecipeSpec
from qpipe.records.recipe import BUILTIN_RECIPES, REFERENCE, SIZE_RECIPES, StageSpec

if TYPE_CHECKING:
    from qpipe.records.pipeline import SearchSpec
    from qpipe.records.scheme import Scheme


def candidates(search: SearchSpec, scheme: Scheme) -> tuple[RecipeSpec, ...]:
    """Recipes to try on one target, at most as many as the budget allows."""
    if search.candidates:
        return search.candidates[: search.trials]
    useful = (name for name in BUILTIN_RECIPES if name not in {REFERENCE, *SIZE_RECIPES})
    return tuple(RecipeSpec(name=name) for name in useful if has_kernels(name, scheme))[: search.trials]


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
    """The recipe with cross-layer equalization before its calibration.

    None where it equalizes already, or does not calibrate.
    """
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
