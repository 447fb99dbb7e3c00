"""Explain cells of a finished run: prepared and built from the store, run again on rows that were not judged."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, UnavailableError
from qpipe.execute.inputs import input_files
from qpipe.execute.jobs import CellJob
from qpipe.execute.local import Job
from qpipe.flow.kept import find_cell, recall_run
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_pipeline, open_registry
from qpipe.records.codec import decode, encode
from qpipe.records.data import RoleName
from qpipe.records.explanation import Explanation
from qpipe.records.pipeline import RecipeSpec

if TYPE_CHECKING:
    from qpipe.execute.exits import Exit
    from qpipe.execute.watch import Watch
    from qpipe.records.cell import Cell
    from qpipe.store import Store

ENTRY = "qpipe.execute.explaining:run_explanation"


def explain_run(store: Store, run_id: str, wanted: str | None, watch: Watch) -> tuple[Explanation, ...]:
    """One explanation per cell that was meant: on the search rows where there are any, else on the gate rows.

    Raises:
        ConfigError: no such run or cell.
        UnavailableError: a child could not explain its cell; the message has its reason.
    """
    kept = recall_run(store, run_id)
    labels = {cell.label: cell.recipe for cell in find_cell(kept.result, wanted)}
    specs = tuple(RecipeSpec(name=name) for name in dict.fromkeys(labels.values()))
    if not labels:
        raise ConfigError(f"run {kept.result.run_id} has judged no cell: there is nothing to explain")
    known = {spec.name: spec for spec in (*kept.pipeline.recipes, *specs)}
    named = tuple(spec for name, spec in known.items() if name in labels.values())
    pipeline = replace(kept.pipeline, recipes=named)
    options = RunOptions(store=store.location, profile=False)
    workplace = open_pipeline(pipeline, open_registry(pipeline.folder), options)
    role: RoleName = "search" if pipeline.data.role("search") is not None else "gate"
    cells = [replace(cell, role=role) for cell in workplace.cells if cell.label in labels]
    found: dict[str, Exit] = {}
    jobs = [_job(cell, store) for cell in cells]
    workplace.executor.run(
        jobs, watch=watch, stop=threading.Event(), done=lambda job, ended: found.__setitem__(job.label, ended)
    )
    return tuple(_explanation(job.label, found[job.label]) for job in jobs)


def _job(cell: Cell, store: Store) -> Job:
    return Job(
        label=cell.label,
        entry=ENTRY,
        request=encode(CellJob(store=store.location, cell=cell)),
        limits=cell.target.limits,
        files=input_files(cell.data, cell.model),
    )


def _explanation(label: str, ended: Exit) -> Explanation:
    if ended.kind != "ok" or ended.result is None:
        reason, hint = (ended.error.message, ended.error.hint) if ended.error else (ended.kind, "")
        raise UnavailableError(f"{label} could not be explained: {reason}", hint=hint)
    return decode(Explanation, ended.result)
