"""Search: candidates meet the search rows, are timed beside the float engine, and one finalist meets the gate rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.execute.jobs import Ranking
from qpipe.flow.search.budget import Budget
from qpipe.flow.search.confirmed import with_finalists
from qpipe.flow.search.finalists import choose, search_rule
from qpipe.flow.search.sampler import WAVE, Sampled, is_installed, sample
from qpipe.flow.search.trials import Hunt, rank_nodes, try_recipes
from qpipe.planning.candidates import candidates, equalized_candidates, mixed_candidates
from qpipe.planning.expand import resolve_recipe
from qpipe.planning.space import BASE, static_space
from qpipe.prepare import has_kernels
from qpipe.records.pipeline import RecipeSpec
from qpipe.records.result import SearchTrial

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from qpipe.execute.children.watch import Watch
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.records.cell import Cell

FEW = 100
"""Fewer outcomes than this hardly tell candidates apart: one flip is a point of accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search leaves: the workplace with its finalists, and every trial."""

    workplace: Workplace
    trials: tuple[SearchTrial, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Caught:
    """What one hunt has found."""

    trials: tuple[SearchTrial, ...]
    finalist: Cell | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    """Which nodes a static recipe should leave in float first."""

    recipe: str
    ranking: Ranking


def search(workplace: Workplace, options: RunOptions, watch: Watch, stop: threading.Event) -> Searched:
    """Try every candidate of every model and target; the finalists join the cells that meet the gate rows."""
    wanted = workplace.pipeline.search
    if wanted is None:
        return Searched(workplace=workplace)
    from qpipe.metrics import find_metric

    pipeline = workplace.pipeline
    metric = find_metric(pipeline.metric, workplace.registry.metrics.values(), pipeline.folder)
    budget = Budget(stop, wanted.minutes)
    caught = [
        _hunt(
            Hunt(
                workplace=workplace,
                options=options,
                watch=watch,
                budget=budget,
                wanted=wanted,
                rule=search_rule(pipeline, metric, wanted.objective),
                model=model,
                target=target,
            )
        )
        for model in workplace.models
        for target in pipeline.targets
    ]
    trials = tuple(trial for one in caught for trial in one.trials)
    finalists = tuple(one.finalist for one in caught if one.finalist is not None)
    said = dict.fromkeys(warning for one in caught for warning in one.warnings)
    return Searched(
        workplace=with_finalists(workplace, finalists),
        trials=trials,
        warnings=(*_left_float(workplace, trials), *said, *_few_rows(trials)),
    )


def _few_rows(trials: Sequence[SearchTrial]) -> tuple[str, ...]:
    """A warning where the metric that chose the finalist is that of few rows."""
    units = max((trial.units for trial in trials if trial.units is not None), default=FEW)
    if units >= FEW:
        return ()
    return (f"the search judged its candidates on {units} rows: that tells little; {FEW} and more tell them apart",)


def _hunt(hunt: Hunt) -> _Caught:
    """All trials of one model and target, and the finalist's cell; None where float stays the best."""
    recipes = candidates(hunt.wanted, hunt.scheme)
    size = max(len(recipes), 1) if hunt.wanted.minutes is None else WAVE
    trials: list[SearchTrial] = []
    for begin in range(0, len(recipes), size):
        trials += try_recipes(hunt, recipes[begin : begin + size])
    mixed, ranked = _mixed(hunt, recipes, trials)
    trials += try_recipes(hunt, mixed) if mixed else []
    sampled, warnings = _sampled(hunt, trials, ranked)
    warnings = (*_unranked(hunt, ranked), *warnings)
    told, best = choose(hunt.rule, [*trials, *sampled.trials])
    spec = next((one for one in (*recipes, *mixed, *sampled.recipes) if best and one.name == best.recipe), None)
    return _Caught(trials=told, finalist=hunt.cell(spec, "gate") if spec else None, warnings=warnings)


def _mixed(
    hunt: Hunt, recipes: tuple[RecipeSpec, ...], trials: list[SearchTrial]
) -> tuple[tuple[RecipeSpec, ...], _Ranked | None]:
    """Where a static recipe is fast but loses too much: equalized, and with its worst nodes left in float."""
    left = hunt.left(len(trials))
    lossy = {trial.recipe for trial in trials if hunt.rule.is_lossy(trial) and not hunt.rule.is_slow(trial)}
    for spec in (spec for spec in recipes if spec.name in lossy):
        stages = resolve_recipe(spec, hunt.scheme).stages
        if any(stage.name == "quantize" for stage in stages) and not hunt.budget.is_set() and left != 0:
            even = equalized_candidates(spec, hunt.scheme)
            rest = None if left is None else left - len(even)
            ranking = rank_nodes(hunt, spec)
            mixed = (*even, *mixed_candidates(spec, hunt.scheme, ranking.nodes, rest))
            return mixed, _Ranked(recipe=spec.name, ranking=ranking)
    return (), None


def _unranked(hunt: Hunt, ranked: _Ranked | None) -> tuple[str, ...]:
    """A warning where nodes were not ranked: nobody shall think that they cost nothing."""
    if ranked is None or not ranked.ranking.problem:
        return ()
    where = f"search for {hunt.model.name}/{hunt.target.name}"
    return (f"{where}: which nodes {ranked.recipe} should leave in float: {ranked.ranking.problem}",)


def _sampled(hunt: Hunt, trials: list[SearchTrial], ranked: _Ranked | None) -> tuple[Sampled, tuple[str, ...]]:
    """Points of the static recipe's space, where the pipeline leaves the candidates to us and trials are left."""
    left = hunt.left(len(trials))
    if not _tunes(hunt) or left == 0 or hunt.budget.is_set():
        return Sampled(), ()
    if not is_installed():
        told = f"optuna is not installed: the {len(trials)} enumerated candidates were tried"
        return Sampled(), (f"{told} (pip install 'qpipe-core[search]')",)
    warnings: tuple[str, ...] = ()
    if ranked is None or ranked.recipe != BASE:
        ranked = _Ranked(recipe=BASE, ranking=rank_nodes(hunt, RecipeSpec(name=BASE)))
        warnings = _unranked(hunt, ranked)
    found = ranked.ranking
    if not found.nodes:  # the static recipe has nothing to quantize here
        return Sampled(), warnings
    space = static_space(hunt.scheme, nodes=found.nodes, smooths=found.smooths, equalizes=found.equalizes)
    return sample(hunt, space, trials, left), warnings


def _tunes(hunt: Hunt) -> bool:
    """Whether to turn the static recipe: it is wanted, can be prepared, and what comes of it can be told apart."""
    wanted = hunt.wanted.tune if hunt.wanted.tune is not None else not hunt.wanted.candidates
    possible = hunt.workplace.pipeline.data.role("calibration") is not None and has_kernels(BASE, hunt.scheme)
    measured = hunt.options.profile or hunt.rule.objective != "latency"
    return wanted and possible and measured


def _left_float(workplace: Workplace, trials: Sequence[SearchTrial]) -> tuple[str, ...]:
    """One line for each model and target where the float engine stays, with why."""
    return tuple(
        f"search for {model.name}/{target.name}: {_why_float(own)}"
        for model in workplace.models
        for target in workplace.pipeline.targets
        if (own := [trial for trial in trials if (trial.model, trial.target) == (model.name, target.name)])
        if not any(trial.chosen for trial in own)
    )


def _why_float(trials: Sequence[SearchTrial]) -> str:
    """Float is the best of what was measured; where nothing was, it is only what is left."""
    reasons: dict[str, list[str]] = {}
    for trial in trials:
        reasons.setdefault(trial.reason, []).append(trial.recipe)
    why = "; ".join(f"{', '.join(recipes)}: {reason}" for reason, recipes in reasons.items())
    best = any(trial.size_bytes is not None for trial in trials)
    return f"the float engine stays the best ({why})" if best else f"no candidate was measured, float stays ({why})"
