"""Explain cells of a finished run: prepared and built from the store, run again on rows that were not judged."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, UnavailableError
from qpipe.execute.elsewhere.inputs import input_files
from qpipe.execute.jobs import CellJob
from qpipe.execute.local import Job
from qpipe.execute.work.explaining import load_explanation
from qpipe.flow.finished.runs import KeptRun, find_cell
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_pipeline, open_registry
from qpipe.records.codec import encode
from qpipe.records.data import RoleName
from qpipe.records.explanation import Explanation
from qpipe.records.pipeline import RecipeSpec
from qpipe.report.beside import compare_targets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpipe.execute.children.exits import Exit
    from qpipe.execute.children.watch import Watch
    from qpipe.records.cell import Cell
    from qpipe.records.result import CellResult
    from qpipe.store import Store

SPACE = "explained"
ENTRY = "qpipe.execute.work.explaining:run_explanation"


def explain_run(store: Store, kept: KeptRun, wanted: str | None, watch: Watch) -> tuple[Explanation, ...]:
    """One explanation per cell that was meant: on the search rows where there are any, else on the gate rows.

    Raises:
        ConfigError: no such cell.
        UnavailableError: a child could not explain its cell; the message has its reason.
    """
    meant = {cell.label: cell for cell in find_cell(kept.result, wanted)}
    if not meant:
        raise ConfigError(f"run {kept.result.run_id} has judged no cell: there is nothing to explain")
    named = tuple(dict.fromkeys(cell.recipe for cell in meant.values()))
    pipeline = replace(kept.pipeline, recipes=tuple(_recipe(name, kept) for name in named))
    options = RunOptions(store=store.location, profile=False)
    workplace = open_pipeline(pipeline, open_registry(pipeline.folder), options)
    role: RoleName = "search" if pipeline.data.role("search") is not None else "gate"
    cells = [cell for cell in workplace.cells if cell.label in meant]
    found: dict[str, Exit] = {}
    jobs = [_job(replace(cell, role=role), store, cell.label) for cell in cells]
    workplace.executor.run(
        jobs, watch=watch, stop=threading.Event(), done=lambda job, ended: found.__setitem__(job.label, ended)
    )
    return tuple(
        replace(
            _explanation(store, meant[job.label], found.get(job.label)),
            beside=compare_targets(meant[job.label], kept.result.cells),
        )
        for job in jobs
    )


def explained(store: Store, cells: Iterable[CellResult]) -> dict[str, Explanation]:
    """What was explained before, by cell key: the report shows it with the cell."""
    known = ((cell, store.recall(SPACE, _slot(cell))) for cell in cells)
    return {cell.key: load_explanation(store.folder(name)) for cell, name in known if name and store.has(name)}


def _slot(cell: CellResult) -> str:
    """An explanation belongs to an engine, however often that was measured."""
    return f"{cell.key}-{cell.engine.digest if cell.engine else 'none'}"


def _recipe(name: str, kept: KeptRun) -> RecipeSpec:
    """A recipe of the pipeline, a candidate that its search made, or a built-in one."""
    named = (*kept.pipeline.recipes, *(kept.pipeline.search.candidates if kept.pipeline.search else ()))
    own = next((spec for spec in named if spec.name == name), None)
    found = next((trial for trial in kept.result.search if trial.recipe == name and trial.stages), None)
    return own or RecipeSpec(name=name, stages=found.stages if found else None)


def _job(cell: Cell, store: Store, label: str) -> Job:
    return Job(
        label=label,
        entry=ENTRY,
        request=encode(CellJob(store=store.location, cell=cell)),
        limits=cell.target.limits,
        files=input_files(cell.data, cell.model),
    )


def _explanation(store: Store, cell: CellResult, ended: Exit | None) -> Explanation:
    if ended is None or ended.kind != "ok" or ended.result is None:
        reason, hint = (ended.error.message, ended.error.hint) if ended and ended.error else ("stopped", "")
        raise UnavailableError(f"{cell.label} could not be explained: {reason}", hint=hint)
    store.remember(SPACE, _slot(cell), ended.result)
    return load_explanation(store.folder(ended.result))
