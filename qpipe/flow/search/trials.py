"""One search on one model and one target: candidates are built, judged on the search rows and timed beside float."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qpipe.execute.children.exits import STOPPED
from qpipe.execute.elsewhere.inputs import input_files
from qpipe.execute.jobs import Ranking, RankingJob
from qpipe.execute.local import Job
from qpipe.flow.cells.evidence import assemble
from qpipe.flow.cells.jobs import fresh_token, work
from qpipe.flow.cells.profiles import measure
from qpipe.flow.cells.verdicts import judge
from qpipe.flow.search.finalists import placement_reason
from qpipe.planning.expand import make_cell
from qpipe.plugins.gate import Alpha
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import Evaluation, NotMeasured
from qpipe.records.pipeline import RecipeSpec
from qpipe.records.recipe import REFERENCE
from qpipe.records.result import SearchTrial
from qpipe.records.verdict import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpipe.execute.children.exits import Exit
    from qpipe.execute.children.watch import Watch
    from qpipe.flow.cells.jobs import Worked
    from qpipe.flow.options import RunOptions
    from qpipe.flow.search.budget import Budget
    from qpipe.flow.search.finalists import Rule
    from qpipe.flow.workplace import Workplace
    from qpipe.records.cell import Cell
    from qpipe.records.data import RoleName
    from qpipe.records.evidence import Evidence
    from qpipe.records.model import Model
    from qpipe.records.pipeline import SearchSpec
    from qpipe.records.scheme import Scheme
    from qpipe.records.target import Target

EXACT = ("size", "placement", "finite", "facts", "arena", "flash", "sram", "npu_share")
"""Gates that compare exact numbers: a candidate that fails one on any rows fails it on all."""
RANKING = 0.5
"""Share of the remaining minutes that ranking nodes may take: what it finds has still to be tried."""
BEFORE_LIMIT = 0.8
"""Share of a child's time after which it gives what it has ranked so far: at the end of it, it would be stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """One search on one model and one target."""

    workplace: Workplace
    options: RunOptions
    watch: Watch
    budget: Budget
    wanted: SearchSpec
    rule: Rule
    model: Model
    target: Target

    @property
    def scheme(self) -> Scheme:
        """The arithmetic of the target."""
        return self.workplace.offers[self.target.name].scheme

    def cell(self, recipe: RecipeSpec, role: RoleName) -> Cell:
        """A recipe on this model and target, judged on the rows of that role."""
        return make_cell(
            self.workplace.pipeline,
            self.model,
            recipe,
            self.target,
            self.workplace.registry,
            offer=self.workplace.offers[self.target.name],
            profile=self.options.profile,
            role=role,
        )

    def left(self, trials: int) -> int | None:
        """Trials that the budget still has after so many; None for any number."""
        return None if self.wanted.trials is None else max(self.wanted.trials - trials, 0)


def try_recipes(hunt: Hunt, recipes: tuple[RecipeSpec, ...]) -> list[SearchTrial]:
    """Build, evaluate and time some candidates together with the float engine, on the search rows.

    What the budget cuts off is told as not tried.
    """
    if hunt.budget.is_set():
        return [untried(hunt, recipe.name, hunt.budget.reason) for recipe in recipes]
    everyone = (RecipeSpec(name=REFERENCE), *recipes)
    place = replace(hunt.workplace, cells=tuple(hunt.cell(recipe, "search") for recipe in everyone))
    worked = work(place, hunt.options, hunt.watch, hunt.budget)
    if not any(one.cell.recipe.is_reference for one in worked):  # cut off before the float engine was there
        return [untried(hunt, recipe.name, hunt.budget.reason) for recipe in recipes]
    twins = find_twins(worked)
    worked = tuple(one for one in worked if one.cell.recipe.name not in twins)
    profiled = measure(place, worked, hunt.watch, hunt.budget)
    evidence = assemble(worked, profiled, place.store)
    found = {one.cell.recipe.name: one for one in worked}
    return [
        _trial(hunt, recipe, found[recipe.name], evidence.get(found[recipe.name].cell.key))
        if recipe.name in found
        else untried(hunt, recipe.name, twins.get(recipe.name, hunt.budget.reason))
        for recipe in recipes
    ]


def find_twins(worked: Sequence[Worked]) -> dict[str, str]:
    """Recipe → why it is not timed, for recipes whose engine an earlier one made too: noise would choose among them."""
    first: dict[str, str] = {}
    found: dict[str, str] = {}
    for one in worked:
        if one.outcome is None or one.cell.recipe.is_reference:
            continue
        name = first.setdefault(one.outcome.engine, one.cell.recipe.name)
        if name != one.cell.recipe.name:
            found[one.cell.recipe.name] = f"the same engine as {name}"
    return found


def rank_nodes(hunt: Hunt, recipe: RecipeSpec) -> Ranking:
    """The quantized nodes of a recipe by what each one costs, found in a child; none where the recipe has no plan.

    That takes at most half of the minutes that are left. Where nodes were not ranked, `problem` says why.
    """
    cell = hunt.cell(recipe, "search")
    found: list[Ranking] = []

    def done(_: Job, ended: Exit) -> None:
        found.append(_ranking(ended, hunt.budget))

    bounds = [BEFORE_LIMIT * cell.target.limits.timeout_s]
    bounds += [RANKING * left] if (left := hunt.budget.left_s) is not None else []
    job = Job(
        label=f"{cell.label}: sensitivity",
        entry="qpipe.execute.work.ranking:run_ranking",
        request=encode(
            RankingJob(
                store=hunt.workplace.store.location, cell=cell, seconds=min(bounds), fresh=fresh_token(hunt.options)
            )
        ),
        limits=cell.target.limits,
        files=input_files(cell.data, cell.model),
    )
    hunt.workplace.executor.run([job], watch=hunt.watch, stop=hunt.budget, done=done)
    return found[0] if found else Ranking(problem=hunt.budget.reason)


def _ranking(ended: Exit, budget: Budget) -> Ranking:
    if ended.kind == "ok" and ended.result:
        return decode(Ranking, ended.result)
    if budget.is_set():
        return Ranking(problem=budget.reason)
    return Ranking(problem=f"{ended.kind}: {ended.error.message}" if ended.error else ended.kind)


def untried(hunt: Hunt, recipe: str, reason: str) -> SearchTrial:
    """A candidate that gave nothing, and why."""
    return SearchTrial(model=hunt.model.name, target=hunt.target.name, recipe=recipe, chosen=False, reason=reason)


def _trial(hunt: Hunt, recipe: RecipeSpec, one: Worked, evidence: Evidence | None) -> SearchTrial:
    if evidence is None:
        cut_off = one.reason == STOPPED and hunt.budget.is_set()
        return untried(hunt, recipe.name, hunt.budget.reason if cut_off else f"{one.status}: {one.reason}")
    found, reference, batch = evidence.evaluation, evidence.reference, evidence.first_batch
    ratio = batch.ratio if batch else None
    if ratio is None and hunt.rule.objective == "latency" and hunt.budget.is_set():
        return untried(hunt, recipe.name, hunt.budget.reason)
    return SearchTrial(
        model=hunt.model.name,
        target=hunt.target.name,
        recipe=recipe.name,
        chosen=False,
        reason=placement_reason(evidence.placement),
        value=found.value if isinstance(found, Evaluation) else None,
        reference=reference.value if isinstance(reference, Evaluation) else None,
        ratio=ratio.median if ratio else None,
        ratio_high=ratio.high if ratio else None,
        sqnr_db=found.sqnr_db if isinstance(found, Evaluation) else None,
        size_bytes=evidence.engine_size_bytes,
        units=found.units if isinstance(found, Evaluation) else None,
        fails=_exact_failure(hunt, one, evidence) or _newly_infinite(evidence),
        missing=next(
            (part.reason for part in (found, reference, evidence.profile) if isinstance(part, NotMeasured)), ""
        ),
        stages=recipe.stages,
    )


def _newly_infinite(evidence: Evidence) -> str:
    """What no pipeline has to forbid: NaN or infinity where the float model has numbers."""
    found, reference = evidence.evaluation, evidence.reference
    if not (isinstance(found, Evaluation) and isinstance(reference, Evaluation)):
        return ""
    if found.nonfinite_rows <= reference.nonfinite_rows:
        return ""
    rows = f"{found.nonfinite_rows:,} of {found.rows:,} rows have NaN or infinity"
    return f"finite: {rows}, of the float model {reference.nonfinite_rows:,}"


def _exact_failure(hunt: Hunt, one: Worked, evidence: Evidence) -> str:
    """The first required gate that is exact (no rows could change it) and fails, with its reason."""
    verdicts = judge(
        hunt.workplace.store,
        evidence,
        tuple(gate for gate in hunt.workplace.pipeline.gates if gate.required and gate.type in EXACT),
        hunt.rule.metric,
        hunt.workplace.registry,
        alpha=Alpha(),
        recipe=one.cell.recipe.name,
        target=one.cell.target.name,
    )
    return next((f"{one.gate}: {one.reason}" for one in verdicts if one.decision is Decision.FAIL), "")
