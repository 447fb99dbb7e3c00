"""The recipes of a pipeline: built-in ones by name, stages, or a search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from qpipe.config.document import KeyPath
from qpipe.config.names import Names
from qpipe.config.params import read_params
from qpipe.config.problems import Problem, unknown_names
from qpipe.config.text import RecipeEntry, RecipeText, SearchOnlyText, SearchText, StageText
from qpipe.errors import QpipeError, nearest
from qpipe.records.pipeline import RecipeSpec, SearchSpec
from qpipe.records.recipe import BUILTIN_RECIPES, CALIBRATED_RECIPES, StageSpec

Recipes = tuple[tuple[RecipeSpec, ...], SearchSpec | None]


def unknown_targets(written: tuple[RecipeEntry, ...] | SearchOnlyText, known: tuple[str, ...]) -> Iterator[Problem]:
    """Targets that recipes are asked for on and the pipeline has not; candidates of a search name none."""
    entries = () if isinstance(written, SearchOnlyText) else written
    for number, entry in enumerate(entries):
        if isinstance(entry, RecipeText):
            yield from unknown_names("target", entry.targets, known, ("recipes", number, "targets"))


def choose_recipes(written: tuple[RecipeEntry, ...] | SearchOnlyText, names: Names, problems: list[Problem]) -> Recipes:
    """Recipes in the order of the file, and the search where there is one."""
    if isinstance(written, SearchOnlyText):
        return (), _search(written.search, ("recipes", "search"), names, problems)
    plain = [(number, entry) for number, entry in enumerate(written) if not _is_search(entry)]
    recipes = _specs(((("recipes", number), entry) for number, entry in plain), names, problems)
    found = [(number, entry.search) for number, entry in enumerate(written) if isinstance(entry, RecipeText)]
    searches = [(number, search) for number, search in found if search is not None]
    for number, _ in searches[1:]:
        problems.append(Problem(at=("recipes", number), message="a second search", hint="a pipeline has one search"))
    for number, search in searches[:1]:
        chosen = _search(search, ("recipes", number, "search"), names, problems)
        problems += _named_alike(recipes, chosen, ("recipes", number, "search", "candidates"))
        return recipes, chosen
    return recipes, None


def _named_alike(recipes: Iterable[RecipeSpec], search: SearchSpec, at: KeyPath) -> Iterator[Problem]:
    """A candidate that is demanded too is one cell; another recipe of that name would be a second one."""
    demanded = {spec.name: spec.stages for spec in recipes}
    for number, spec in enumerate(search.candidates):
        if demanded.get(spec.name, spec.stages) != spec.stages:
            message = f"recipe {spec.name!r} has other stages among the recipes"
            yield Problem(at=(*at, number), message=message, hint="give one of them another name")


def needs_calibration(recipe: RecipeSpec, names: Names) -> bool:
    """Whether a recipe reads calibration rows."""
    if recipe.stages is None:
        return recipe.name in CALIBRATED_RECIPES
    return any(names.stage(stage.name).needs_calibration for stage in recipe.stages)


def _is_search(entry: RecipeEntry) -> bool:
    return isinstance(entry, RecipeText) and entry.search is not None


def _search(text: SearchText, at: KeyPath, names: Names, problems: list[Problem]) -> SearchSpec:
    if text.budget.trials is None and text.budget.minutes is None:
        problems.append(
            Problem(at=at, message="the search has no budget", hint="budget: {minutes: 5}, or {trials: 20}, or both")
        )
    entries = (((*at, "candidates", number), entry) for number, entry in enumerate(text.candidates))
    return SearchSpec(
        objective=text.objective,
        trials=text.budget.trials,
        minutes=text.budget.minutes,
        candidates=_specs(entries, names, problems),
        tune=text.tune,
    )


def _specs(
    entries: Iterable[tuple[KeyPath, RecipeEntry]], names: Names, problems: list[Problem]
) -> tuple[RecipeSpec, ...]:
    chosen: dict[str, RecipeSpec] = {}
    for at, entry in entries:
        spec = _builtin(entry, at, problems) if isinstance(entry, str) else _own(entry, at, names, problems)
        if spec is None:
            continue
        if spec.name in chosen:
            problems.append(Problem(at=at, message=f"recipe {spec.name!r} is named twice", hint="keep one of them"))
        chosen[spec.name] = spec
    return tuple(chosen.values())


def _builtin(name: str, at: KeyPath, problems: list[Problem]) -> RecipeSpec | None:
    if name in BUILTIN_RECIPES:
        return RecipeSpec(name=name)
    problems.append(
        Problem(
            at=at,
            message=f"unknown recipe {name!r}{nearest(name, BUILTIN_RECIPES)}",
            hint=f"built-in recipes: {', '.join(BUILTIN_RECIPES)}; or write {{name: {name}, stages: […]}}",
        )
    )
    return None


def _own(text: RecipeText, at: KeyPath, names: Names, problems: list[Problem]) -> RecipeSpec | None:
    if text.targets is not None and "candidates" in at:
        problems.append(Problem(at=(*at, "targets"), message="a search tries its candidates on every target"))
    if text.name is not None and text.stages is None and text.targets is not None:
        known = _builtin(text.name, at, problems)
        return replace(known, targets=text.targets) if known else None
    if text.name is None or text.stages is None:
        lacks = "name" if text.name is None else "stages"
        problems.append(Problem(at=at, message=f"the recipe lacks the key {lacks!r}", hint="{name: …, stages: […]}"))
        return None
    if text.name in BUILTIN_RECIPES:
        message = f"recipe {text.name!r} is built in"
        problems.append(Problem(at=(*at, "name"), message=message, hint="give yours another name"))
    stages = tuple(_stage(stage, (*at, "stages", number), names, problems) for number, stage in enumerate(text.stages))
    return RecipeSpec(name=text.name, stages=stages, targets=text.targets)


def _stage(text: StageText, at: KeyPath, names: Names, problems: list[Problem]) -> StageSpec:
    name, params = _split(text)
    try:
        kind = names.stage(name)
    except QpipeError as error:
        problems.append(Problem.of(at, error))
    else:
        found = read_params(kind.params, params, (*at, name))
        problems += found if isinstance(found, tuple) else ()
    return StageSpec(name=name, params=params)


def _split(text: StageText) -> tuple[str, Mapping[str, object]]:
    if isinstance(text, str):
        return text, {}
    name, params = next(iter(text.items()))
    return name, dict(params or {})
