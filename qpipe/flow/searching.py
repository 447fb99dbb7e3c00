"""Search: candidates meet the search rows, are timed beside the float engine, and one finalist meets the gate rows."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qpipe.execute.inputs import input_files
from qpipe.execute.jobs import Ranking, RankingJob
from qpipe.execute.local import Job
from qpipe.flow.deciding import judge
from qpipe.flow.evidence import assemble
from qpipe.flow.measuring import measure
from qpipe.flow.working import work
from qpipe.planning.candidates import candidates, equalized_candidates, mixed_candidates, search_cells
from qpipe.planning.expand import make_cell
from qpipe.plugins.gate import Alpha
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import Evaluation, Profile
from qpipe.records.pipeline import RecipeSpec, SearchSpec
from qpipe.records.result import SearchTrial
from qpipe.records.verdict import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpipe.execute.exits import Exit
    from qpipe.execute.watch import Watch
    from qpipe.flow.options import RunOptions
    from qpipe.flow.working import Worked
    from qpipe.flow.workplace import Workplace
    from qpipe.plugins.metric import Metric
    from qpipe.records.cell import Cell
    from qpipe.records.evidence import Evidence
    from qpipe.records.model import Model
    from qpipe.records.target import Target


EXACT = ("size", "placement", "finite", "facts", "arena", "flash", "sram", "npu_share")
"""Gates that compare exact numbers: a candidate that fails one on any rows fails it on all."""
WAVE = 3
"""Candidates that are tried together where the budget is in minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search leaves: the workplace with its finalists, and every trial."""

    workplace: Workplace
    trials: tuple[SearchTrial, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When a candidate may be chosen: no worse than the margin on the search rows; for speed, faster than float."""

    metric: Metric
    margin: float
    objective: str

    def objection(self, trial: SearchTrial) -> str:
        """Why this candidate cannot be the finalist, or an empty string."""
        if trial.value is None or trial.reference is None:
            return trial.reason or "its metric on the search rows is undefined"
        loss = self.loss(trial)
        if self.is_lossy(trial):
            return f"loses {loss:.4g} on the search rows, {self.margin:.4g} allowed"
        if trial.fails:
            return f"would fail {trial.fails}"
        if self.is_slow(trial):
            return f"not faster than float: {trial.ratio:.3g} of its latency ({trial.reason})"
        if self.objective == "latency" and trial.ratio is None:
            return "its latency was not measured"
        return ""

    def loss(self, trial: SearchTrial) -> float:
        """How much worse than the float model, in the metric's unit; NaN where it was not measured."""
        if trial.value is None or trial.reference is None:
            return float("nan")
        return (trial.reference - trial.value) * (1.0 if self.metric.higher_is_better else -1.0)

    def is_lossy(self, trial: SearchTrial) -> bool:
        """Whether it was measured and loses more than the margin."""
        return self.loss(trial) > self.margin

    def is_slow(self, trial: SearchTrial) -> bool:
        """Whether it was timed, speed is what is wanted, and float is as fast."""
        return self.objective == "latency" and trial.ratio is not None and trial.ratio >= 1

    def rank(self, trial: SearchTrial) -> float:
        """Smaller is better."""
        found = trial.ratio if self.objective == "latency" else trial.size_bytes
        return float("inf") if found is None else float(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """One search on one model and one target."""

    workplace: Workplace
    options: RunOptions
    watch: Watch
    stop: threading.Event
    wanted: SearchSpec
    rule: Rule
    model: Model
    target: Target
    deadline: float | None

    @property
    def over(self) -> bool:
        """Whether the minutes are spent, or the user wants to stop."""
        return self.stop.is_set() or (self.deadline is not None and time.monotonic() > self.deadline)


def search(workplace: Workplace, options: RunOptions, watch: Watch, stop: threading.Event) -> Searched:
    """Try every candidate of every model and target; the finalists join the cells that meet the gate rows."""
    wanted = workplace.pipeline.search
    if wanted is None:
        return Searched(workplace=workplace)
    trials: list[SearchTrial] = []
    finalists: list[Cell] = []
    rule = _rule(workplace, wanted)
    deadline = None if wanted.minutes is None else time.monotonic() + 60 * wanted.minutes
    for model in workplace.models:
        for target in workplace.pipeline.targets:
            hunt = Hunt(
                workplace=workplace,
                options=options,
                watch=watch,
                stop=stop,
                wanted=wanted,
                rule=rule,
                model=model,
                target=target,
                deadline=deadline,
            )
            found, finalist = _hunt(hunt)
            trials += found
            finalists += [finalist] if finalist is not None else []
    return Searched(
        workplace=replace(workplace, cells=(*workplace.cells, *finalists)),
        trials=tuple(trials),
        warnings=_warnings(workplace, trials),
    )


def _rule(workplace: Workplace, wanted: SearchSpec) -> Rule:
    from qpipe.metrics import find_metric

    pipeline = workplace.pipeline
    margins = [gate.params.get("margin") for gate in pipeline.gates if gate.type == "quality"]
    numbers = [float(margin) for margin in margins if isinstance(margin, int | float)]
    return Rule(
        metric=find_metric(pipeline.metric, workplace.registry.metrics.values(), pipeline.folder),
        margin=min(numbers, default=float("inf")),
        objective=wanted.objective,
    )


def _hunt(hunt: Hunt) -> tuple[tuple[SearchTrial, ...], Cell | None]:
    """All trials of one model and target, and the finalist's cell; None where float stays the best."""
    offer = hunt.workplace.offers[hunt.target.name]
    recipes = candidates(hunt.wanted, offer.scheme)
    size = len(recipes) if hunt.deadline is None else WAVE
    trials: list[SearchTrial] = []
    for begin in range(0, len(recipes), max(size, 1)):
        wave = recipes[begin : begin + size]
        if hunt.over:
            trials += [_untried(hunt, recipe, "the minutes of the budget were spent") for recipe in wave]
        else:
            trials += _try(hunt, wave)
    mixed = _mixed(hunt, recipes, trials)
    if mixed:
        recipes, trials = (*recipes, *mixed), [*trials, *_try(hunt, mixed)]
    judged = [_with_objection(hunt.rule, trial) for trial in trials]
    fit = [trial for trial in judged if trial.chosen]
    if not fit:
        return tuple(judged), None
    best = min(fit, key=hunt.rule.rank)
    told = tuple(
        trial if trial is best or not trial.chosen else replace(trial, chosen=False, reason=f"{best.recipe} is better")
        for trial in judged
    )
    spec = next(recipe for recipe in recipes if recipe.name == best.recipe)
    finalist = make_cell(
        hunt.workplace.pipeline,
        hunt.model,
        spec,
        hunt.target,
        hunt.workplace.registry,
        offer=offer,
        profile=hunt.options.profile,
    )
    return told, finalist


def _mixed(hunt: Hunt, recipes: tuple[RecipeSpec, ...], trials: list[SearchTrial]) -> tuple[RecipeSpec, ...]:
    """Where a static recipe is fast but loses too much: equalized, and with its worst nodes left in float."""
    left = None if hunt.wanted.trials is None else hunt.wanted.trials - len(trials)
    lossy = [trial for trial in trials if hunt.rule.is_lossy(trial) and not hunt.rule.is_slow(trial)]
    specs = [spec for spec in recipes if any(trial.recipe == spec.name for trial in lossy)]
    for spec in specs:
        cell = _search_cells(hunt, (spec,))[-1]
        if any(stage.name == "quantize" for stage in cell.recipe.stages) and not hunt.over and left != 0:
            even = equalized_candidates(spec, cell.scheme)
            rest = None if left is None else left - len(even)
            return (*even, *mixed_candidates(spec, cell.scheme, _rank_nodes(hunt, cell), rest))
    return ()


def _rank_nodes(hunt: Hunt, cell: Cell) -> tuple[str, ...]:
    found: list[tuple[str, ...]] = []

    def done(_: Job, ended: Exit) -> None:
        found.append(decode(Ranking, ended.result).nodes if ended.kind == "ok" and ended.result else ())

    job = Job(
        label=f"{cell.label}: sensitivity",
        entry="qpipe.execute.ranking:run_ranking",
        request=encode(RankingJob(store=hunt.workplace.store.location, cell=cell)),
        limits=cell.target.limits,
        files=input_files(cell.data, cell.model),
    )
    hunt.workplace.executor.run([job], watch=hunt.watch, stop=hunt.stop, done=done)
    return found[0] if found else ()


def _search_cells(hunt: Hunt, recipes: tuple[RecipeSpec, ...]) -> tuple[Cell, ...]:
    return search_cells(
        hunt.workplace.pipeline,
        recipes,
        hunt.model,
        hunt.target,
        hunt.workplace.registry,
        offer=hunt.workplace.offers[hunt.target.name],
        profile=hunt.options.profile,
    )


def _try(hunt: Hunt, recipes: tuple[RecipeSpec, ...]) -> list[SearchTrial]:
    """Build, evaluate and time some candidates together with the float engine, on the search rows."""
    cells = _search_cells(hunt, recipes)
    place = replace(hunt.workplace, cells=cells)
    worked = work(place, hunt.options, hunt.watch, hunt.stop)
    profiled = measure(place, worked, hunt.watch, hunt.stop)
    if hunt.stop.is_set():
        return [_untried(hunt, recipe, "interrupted") for recipe in recipes]
    evidence = assemble(worked, profiled, place.store)
    return [_trial(hunt, one, evidence.get(one.cell.key)) for one in worked if not one.cell.recipe.is_reference]


def _trial(hunt: Hunt, one: Worked, evidence: Evidence | None) -> SearchTrial:
    if evidence is None:
        return _untried(hunt, RecipeSpec(name=one.cell.recipe.name), f"{one.status}: {one.reason}")
    found, reference = evidence.evaluation, evidence.reference
    profile = evidence.profile
    ratio = profile.batches[0].ratio if isinstance(profile, Profile) and profile.batches else None
    return SearchTrial(
        model=hunt.model.name,
        target=hunt.target.name,
        recipe=one.cell.recipe.name,
        chosen=False,
        reason=_placement(evidence),
        value=found.value if isinstance(found, Evaluation) else None,
        reference=reference.value if isinstance(reference, Evaluation) else None,
        ratio=ratio.median if ratio else None,
        size_bytes=evidence.engine_size_bytes,
        fails=_exact_failure(hunt, one, evidence),
    )


def _exact_failure(hunt: Hunt, one: Worked, evidence: Evidence) -> str:
    """The first required gate that is exact (no rows could change it) and fails, with its reason."""
    verdicts = judge(
        evidence,
        hunt.workplace.store.folder(evidence.digest),
        tuple(gate for gate in hunt.workplace.pipeline.gates if gate.required and gate.type in EXACT),
        hunt.rule.metric,
        hunt.workplace.registry,
        alpha=Alpha(),
        recipe=one.cell.recipe.name,
        target=one.cell.target.name,
    )
    return next((f"{one.gate}: {one.reason}" for one in verdicts if one.decision is Decision.FAIL), "")


def _placement(evidence: Evidence) -> str:
    placement = evidence.placement
    if placement is None:
        return "its placement is unknown"
    return f"{placement.integer} of {placement.integer + placement.float} quantizable nodes run in integer"


def _with_objection(rule: Rule, trial: SearchTrial) -> SearchTrial:
    objection = rule.objection(trial)
    return replace(trial, chosen=not objection, reason=objection or "the best that is good enough")


def _untried(hunt: Hunt, recipe: RecipeSpec, reason: str) -> SearchTrial:
    return SearchTrial(model=hunt.model.name, target=hunt.target.name, recipe=recipe.name, chosen=False, reason=reason)


def _warnings(workplace: Workplace, trials: Sequence[SearchTrial]) -> tuple[str, ...]:
    """One line for each model and target where float stays the best, with why."""
    found = []
    for model in workplace.models:
        for target in workplace.pipeline.targets:
            own = [trial for trial in trials if (trial.model, trial.target) == (model.name, target.name)]
            if not any(trial.chosen for trial in own):
                why = "; ".join(f"{trial.recipe}: {trial.reason}" for trial in own)
                found.append(f"search for {model.name}/{target.name}: the float engine stays the best ({why})")
    return tuple(found)
