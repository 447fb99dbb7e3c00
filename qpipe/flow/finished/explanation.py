"""Explain cells of a finished run: prepared and built from the store, run again on rows that were not judged."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError
from qpipe.execute.elsewhere.inputs import input_files
from qpipe.execute.jobs import CellJob
from qpipe.execute.local import Job
from qpipe.execute.work.explaining import load_explanation
from qpipe.flow.cells.objects import is_built, is_prepared
from qpipe.flow.finished.runs import KeptRun, find_cell
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_pipeline, open_registry
from qpipe.planning.expand import make_cell
from qpipe.records.codec import encode
from qpipe.records.data import RoleName
from qpipe.records.explanation import Explanation
from qpipe.records.pipeline import RecipeSpec
from qpipe.report.beside import compare_targets, measured_speed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpipe.execute.children.exits import Exit
    from qpipe.execute.children.watch import Watch
    from qpipe.flow.workplace import Workplace
    from qpipe.records.cell import Cell
    from qpipe.records.result import CellResult
    from qpipe.store import Store

SPACE = "explained"
ENTRY = "qpipe.execute.work.explaining:run_explanation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unexplained:
    """A cell that could not be explained, and why."""

    cell: str
    """Its label."""
    reason: str
    hint: str = ""
    stopped: str = ""
    """How far it came, in words, as far as the store tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What was found of the cells that were meant."""

    cells: tuple[Explanation, ...]
    not_explained: tuple[Unexplained, ...]


def explain_run(store: Store, kept: KeptRun, wanted: str | None, watch: Watch) -> Explained:
    """One explanation per cell that was meant: on the search rows where there are any, else on the gate rows.

    A cell that cannot be explained stops no other. Of a whole run those that broke are told as they ended; one that is
    asked for by name is tried again.

    Raises:
        ConfigError: no such cell.
    """
    meant = {cell.label: cell for cell in find_cell(kept.result, wanted)}
    broken = [cell for cell in kept.result.cells if cell.status not in ("ok", "unavailable")] if wanted is None else []
    if not meant and not broken:
        raise ConfigError(f"run {kept.result.run_id} has judged no cell: there is nothing to explain")
    pipeline = replace(kept.pipeline, recipes=())
    options = RunOptions(store=store.location, profile=False)
    workplace = open_pipeline(pipeline, open_registry(pipeline.folder), options)
    role: RoleName = "search" if pipeline.data.role("search") is not None else "gate"
    every = meant | {cell.label: cell for cell in broken}
    cells = {label: _cell(workplace, cell, _recipe(cell, kept), role) for label, cell in every.items()}
    anew = {label: changed_since(workplace, cell, _recipe(cell, kept)) for label, cell in every.items()}
    found: dict[str, Exit] = {}
    jobs = [_job(cells[label], store, label) for label in meant]
    with store.at_work():
        workplace.executor.run(
            jobs, watch=watch, stop=threading.Event(), done=lambda job, ended: found.__setitem__(job.label, ended)
        )
        ends = [(meant[job.label], _end(store, meant[job.label], found.get(job.label))) for job in jobs]
    return Explained(
        cells=tuple(
            replace(
                end,
                cell=cell.label,
                beside=(*compare_targets(cell, kept.result.cells), *anew[cell.label]),
                speed=measured_speed(cell),
            )
            for cell, end in ends
            if isinstance(end, Explanation)
        ),
        not_explained=tuple(
            replace(end, stopped=_stopped(store, cells[end.cell], anew[end.cell]))
            for end in (*(end for _, end in ends if isinstance(end, Unexplained)), *map(_as_ended, broken))
        ),
    )


def _as_ended(cell: CellResult) -> Unexplained:
    return Unexplained(cell=cell.label, reason=f"{cell.status}: {cell.reason}", hint=cell.hint)


def _stopped(store: Store, cell: Cell, changed: tuple[str, ...]) -> str:
    """How far a cell came; nothing where the store may hold what another model, device or qpipe made."""
    if changed:
        return ""
    if is_built(store, cell):
        return "it was prepared and built: what is missing is a run or a judgement of its engine"
    if not is_prepared(store, cell):
        return "it stopped before its graph was prepared"
    stages = ", ".join(stage.name for stage in cell.recipe.stages)
    return f"its graph was prepared{f' ({stages})' if stages else ''}; it stopped before its engine was built"


def explained(store: Store, cells: Iterable[CellResult]) -> dict[str, Explanation]:
    """What was explained before, by cell key: the report shows it with the cell."""
    known = ((cell, store.recall(SPACE, _slot(cell))) for cell in cells)
    return {cell.key: load_explanation(store.folder(name)) for cell, name in known if name and store.has(name)}


def _slot(cell: CellResult) -> str:
    """An explanation belongs to an engine, however often that was measured."""
    return f"{cell.key}-{cell.engine.digest if cell.engine else 'none'}"


def _recipe(cell: CellResult, kept: KeptRun) -> RecipeSpec:
    """A recipe of the pipeline, a candidate that its search made for this model and target, or a built-in one."""
    name = cell.recipe
    named = (*kept.pipeline.recipes, *(kept.pipeline.search.candidates if kept.pipeline.search else ()))
    own = next((spec for spec in named if spec.name == name), None)
    mine = (one for one in kept.result.search if (one.model, one.recipe, one.target) == (cell.model, name, cell.target))
    found = next((trial for trial in mine if trial.stages), None)
    return own or RecipeSpec(name=name, stages=found.stages if found else None)


def _cell(workplace: Workplace, cell: CellResult, spec: RecipeSpec, role: RoleName, *, profile: bool = False) -> Cell:
    """The cell as it would be worked on now: two targets may have different recipes of one name."""
    return make_cell(
        workplace.pipeline,
        next(model for model in workplace.models if model.name == cell.model),
        spec,
        target := next(target for target in workplace.pipeline.targets if target.name == cell.target),
        workplace.registry,
        offer=workplace.offers[target.name],
        profile=profile,
        role=role,
    )


def changed_since(workplace: Workplace, cell: CellResult, spec: RecipeSpec) -> tuple[str, ...]:
    """A line where what is explained is not what the run judged; nothing where it is."""
    now = {_cell(workplace, cell, spec, "gate", profile=profile).key for profile in (False, True)}
    if cell.key in now:
        return ()
    return ("made anew: the model, the data, the device or qpipe are not what that run had; run the pipeline again",)


def _job(cell: Cell, store: Store, label: str) -> Job:
    return Job(
        label=label,
        entry=ENTRY,
        request=encode(CellJob(store=store.location, cell=cell)),
        limits=cell.target.limits,
        files=input_files(cell.data, cell.model),
    )


def _end(store: Store, cell: CellResult, ended: Exit | None) -> Explanation | Unexplained:
    if ended is None or ended.kind != "ok" or ended.result is None:
        reason, hint = (ended.error.message, ended.error.hint) if ended and ended.error else ("stopped", "")
        return Unexplained(cell=cell.label, reason=reason, hint=hint)
    store.remember(SPACE, _slot(cell), ended.result)
    return load_explanation(store.folder(ended.result))
