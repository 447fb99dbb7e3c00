"""Models × recipes × targets → cells, the float baseline of each target among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.data import outcome_digest, role_digest
from qpipe.errors import TargetError
from qpipe.metrics import metric_source_digest
from qpipe.planning.keys import build_key, measure_key, prepare_key
from qpipe.planning.offers import Offer, ask_backend
from qpipe.prepare import builtin_recipe, has_kernels
from qpipe.prepare.shapes import sets_shapes
from qpipe.records.cell import Cell, Timing
from qpipe.records.data import DataSpec, RoleName
from qpipe.records.model import Model
from qpipe.records.pipeline import Pipeline, RecipeSpec
from qpipe.records.recipe import BUILTIN_RECIPES, REFERENCE, Recipe
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpipe.plugins.registry import Registry


def expand(
    pipeline: Pipeline,
    models: tuple[Model, ...],
    registry: Registry,
    *,
    profile: bool,
    offers: Mapping[str, Offer] | None = None,
) -> tuple[Cell, ...]:
    """All cells of a pipeline, baselines first within each target.

    `offers` says by target name what the machines that do the work offer; None asks the backends here.

    Raises:
        TargetError: a demand that a target can never meet (no integer kernels, FP8 without hardware).
        PluginError: a target names a backend that no installed plugin brings.
    """
    if offers is None:
        offers = {target.name: ask_backend(target, registry) for target in pipeline.targets}
    recipes = (RecipeSpec(name=REFERENCE), *(spec for spec in pipeline.recipes if spec.name != REFERENCE))
    return tuple(
        make_cell(pipeline, model, recipe, target, registry, offer=offers[target.name], profile=profile)
        for model in models
        for target in pipeline.targets
        for recipe in recipes
        if recipe.is_for(target.name)
    )


def make_cell(
    pipeline: Pipeline,
    model: Model,
    spec: RecipeSpec,
    target: Target,
    registry: Registry,
    *,
    offer: Offer,
    profile: bool,
    role: RoleName = "gate",
) -> Cell:
    """One cell with its three keys. That is cheap: the digests of data and model are known.

    `offer` is what the machine that does the work offers for the target; `role` names the rows that judge the engine.
    """
    availability, scheme = offer.availability, offer.scheme
    recipe = _resolved_for(target, spec, scheme)
    timing = pipeline.timing if profile else None
    calibration = _calibration(pipeline.data, model, recipe, registry)
    prepare = prepare_key(model, recipe, scheme, calibration, _stage_code(recipe, registry))
    build = build_key(prepare, target, availability, offer.code)
    measure = measure_key(
        build,
        fingerprint=availability.fingerprint,
        rows=(f"{role} data", outcome_digest(pipeline.data, role) if pipeline.data.role(role) else "none"),
        metric=f"{pipeline.metric} {_metric_code(pipeline, registry)}",  # the name too: a file may have several
        target=target,
        timing=timing,
    )
    return Cell(
        model=model,
        recipe=recipe,
        target=target,
        scheme=scheme,
        data=pipeline.data,
        metric=pipeline.metric,
        folder=pipeline.folder,
        profile=profile,
        timing=timing or Timing(),
        prepare=prepare,
        build=build,
        measure=measure,
        role=role,
    )


def _stage_code(recipe: Recipe, registry: Registry) -> str:
    """The code of stages that plugins bring, by name."""
    found = {stage.name: registry.code_of_stage(stage.name) for stage in recipe.stages}
    return "; ".join(f"{name}: {code}" for name, code in sorted(found.items()) if code)


def _metric_code(pipeline: Pipeline, registry: Registry) -> str:
    """The code of a plugin's metric, else the bytes of the file that defines it."""
    known = "" if ":" in pipeline.metric else registry.code_of_metric(pipeline.metric)
    return known or metric_source_digest(pipeline.metric, registry.metrics.values(), pipeline.folder)


def _resolved_for(target: Target, spec: RecipeSpec, scheme: Scheme) -> Recipe:
    """`resolve_recipe` with an error that names the target and the recipes that it has kernels for."""
    try:
        return resolve_recipe(spec, scheme)
    except TargetError as error:
        if spec.name not in BUILTIN_RECIPES:
            raise
        able = ", ".join(name for name in BUILTIN_RECIPES if has_kernels(name, scheme))
        raise TargetError(
            f"{target.name} cannot run recipe {spec.name!r}: {error.message}",
            hint=f"it can run {able}; `{{name: {spec.name}, targets: […]}}` asks for it on those that can",
        ) from error


def resolve_recipe(spec: RecipeSpec, scheme: Scheme) -> Recipe:
    """A recipe with its stages: those that were written down, else those that its name means under the scheme."""
    if spec.stages is not None:
        return Recipe(name=spec.name, stages=spec.stages)
    return builtin_recipe(spec.name, scheme)


def _calibration(data: DataSpec, model: Model, recipe: Recipe, registry: Registry) -> str:
    """The rows that ranges come from (and shapes, where the model leaves them free), and how many at a time."""
    needed = any(registry.stage(stage.name).needs_calibration for stage in recipe.stages)
    rows = "not used"
    if needed or sets_shapes(model.signature):
        rows = role_digest(data, "calibration") if data.role("calibration") else "none"
    return f"{rows}, {data.batch} at a time"
