"""The rest of a search's budget: Optuna's TPE turns the static recipe where enumerated candidates leave a space."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING

from qpipe.flow.search.trials import try_recipes
from qpipe.planning.space import describe_point, named_points, recipe_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import optuna

    from qpipe.flow.search.finalists import Rule
    from qpipe.flow.search.trials import Hunt
    from qpipe.planning.space import Point, Space
    from qpipe.records.pipeline import RecipeSpec
    from qpipe.records.result import SearchTrial

SEED = 0
WAVE = 3
"""Candidates that are tried together where time may run out: they share one measurement of the float engine."""
STARTUP = 6
"""Random points before the estimator speaks."""
MOST = 200
"""Points at most, where the budget is in minutes alone."""
PATIENCE = 5
"""Points that were tried before and are suggested again, after which one is drawn from the rest."""
FAR = 1e18
"""Above every rank: candidates that lose too much come behind all others, ordered by their loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Candidates that the sampler made, with what became of them."""

    recipes: tuple[RecipeSpec, ...] = ()
    trials: tuple[SearchTrial, ...] = ()


def is_installed() -> bool:
    """Whether Optuna is there; it is an extra."""
    return find_spec("optuna") is not None


def sample(hunt: Hunt, space: Space, tried: Sequence[SearchTrial], most: int | None) -> Sampled:
    """Try points of the space until the budget is spent or the space is exhausted; those `tried` before are known."""
    return search_space(
        space,
        hunt.rule,
        partial(try_recipes, hunt),
        known=known_points(hunt.rule, space, tried),
        most=MOST if most is None else most,
        over=hunt.budget.is_set,
        taken=frozenset(one.name for one in (*hunt.wanted.candidates, *hunt.workplace.pipeline.recipes)),
    )


def known_points(rule: Rule, space: Space, tried: Sequence[SearchTrial]) -> dict[Point, float | None]:
    """Candidates that are points of the space, the recipe as it is among them, with what they cost."""
    points = named_points(space)
    return {points[trial.recipe]: cost(rule, trial) for trial in tried if trial.recipe in points}


def search_space(
    space: Space,
    rule: Rule,
    attempt: Callable[[tuple[RecipeSpec, ...]], Sequence[SearchTrial]],
    *,
    known: dict[Point, float | None],
    most: int,
    over: Callable[[], bool] = lambda: False,
    taken: frozenset[str] = frozenset(),
) -> Sampled:
    """Try points in waves until `most` were tried, none is left or it is `over`; `attempt` tries the recipes of a wave.

    `known` are points that were tried before, with what they cost; `taken` are names that are in use. The sampler has a
    seed: the same trials give the same points.

    Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization (NIPS 2011), section 4.
    """
    study = _study(space, known)
    seen = set(known)
    names = (name for number in count(1) if (name := f"tuned{number}") not in taken)
    recipes: list[RecipeSpec] = []
    trials: list[SearchTrial] = []
    while len(recipes) < min(most, space.size - len(known)) and not over():
        asked = _ask(study, space, seen, min(WAVE, most - len(recipes)))
        if not asked:
            break
        wave = tuple(recipe_at(space, point, next(names)) for _, point in asked)
        found = attempt(wave)
        for (trial, point), told in zip(asked, found, strict=True):
            _tell(study, trial, cost(rule, told))
            trials.append(replace(told, tried=describe_point(point)))
        recipes += wave
    return Sampled(recipes=tuple(recipes), trials=tuple(trials))


def cost(rule: Rule, trial: SearchTrial) -> float | None:
    """What the sampler makes small; None where nothing was measured."""
    loss, rank = rule.loss(trial), rule.rank(trial)
    if math.isnan(loss) or not math.isfinite(rank):
        return None
    return FAR * (1 + loss) if rule.is_lossy(trial) else rank


def _study(space: Space, known: dict[Point, float | None]) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=SEED, n_startup_trials=STARTUP)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    spaces: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(values) for name, values in space.choices
    }
    for point, value in known.items():
        if value is not None:
            params = dict(point)
            study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=value))
    return study


def _ask(study: optuna.Study, space: Space, seen: set[Point], most: int) -> list[tuple[optuna.Trial, Point]]:
    """Up to `most` points that nobody has tried: where the estimator repeats itself, one at random."""
    found: list[tuple[optuna.Trial, Point]] = []
    repeated = 0
    while len(found) < most and len(seen) < space.size:
        if repeated >= PATIENCE:
            study.enqueue_trial(dict(_new_point(space, seen)))
        trial = study.ask()
        point = tuple((name, str(trial.suggest_categorical(name, values))) for name, values in space.choices)
        if point in seen:
            repeated += 1
            _tell(study, trial, None)
            continue
        seen.add(point)
        found.append((trial, point))
    return found


def _new_point(space: Space, seen: set[Point]) -> Point:
    """A point that is not among those seen; there must be one."""
    draw = random.Random(SEED + len(seen))
    while True:
        point = tuple((name, draw.choice(values)) for name, values in space.choices)
        if point not in seen:
            return point


def _tell(study: optuna.Study, trial: optuna.Trial, value: float | None) -> None:
    from optuna.trial import TrialState

    if value is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)
