"""Run the jobs of all cells: prepare, build, evaluate. What the store has whole is not run again."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from qpipe.execute.elsewhere.inputs import input_files
from qpipe.execute.jobs import CellJob, CellOutcome, ReferenceJob
from qpipe.execute.local import Job
from qpipe.flow.cells.objects import is_done, recall_cell
from qpipe.flow.cells.refusals import recall_refusal, remember_refusal
from qpipe.records.cell import Cell
from qpipe.records.codec import decode, encode
from qpipe.records.engine import Unavailable
from qpipe.records.result import Status
from qpipe.records.target import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpipe.execute.children.guard import Exit, ExitKind
    from qpipe.execute.children.watch import Watch
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace

CELL = "qpipe.execute.work.cell:run_cell"
REFERENCE = "qpipe.execute.work.reference:run_reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """What became of the work of one cell, before anything is decided."""

    cell: Cell
    status: Status
    reason: str = ""
    hint: str = ""
    log_tail: str = ""
    seconds: float = 0.0
    outcome: CellOutcome | None = None
    evidence: str | None = None
    """Object of the evidence, where the whole cell was found in the store."""
    refused_before: bool = False
    """Whether the store knew already that there can be no engine, and why."""


def baseline_of(one: Worked, worked: Sequence[Worked]) -> Worked:
    """The float engine of the same model and target."""
    place = one.cell.model.name, one.cell.target.name
    return next(
        other
        for other in worked
        if other.cell.recipe.is_reference and (other.cell.model.name, other.cell.target.name) == place
    )


def work(workplace: Workplace, options: RunOptions, watch: Watch, stop: threading.Event) -> tuple[Worked, ...]:
    """Every cell of the workplace, in its order."""
    found = {cell.label: _without_work(cell, workplace, options) for cell in workplace.cells}
    todo = {cell.label: cell for cell in workplace.cells if found[cell.label] is None}
    for label, known in found.items():
        if known is not None:
            watch.end(label, "cached" if known.status == "ok" else known.status)

    def done(job: Job, ended: Exit) -> None:
        if cell := todo.get(job.label):
            found[cell.label] = worked_of(cell, ended)
            remember_refusal(workplace.store, cell.key, ended)

    fresh = fresh_token(options)
    last = sorted(todo.values(), key=lambda cell: cell.recipe.is_reference)  # it waits for the reference outputs
    jobs = [*_references(last, workplace, fresh), *(_cell_job(cell, workplace, fresh) for cell in last)]
    workplace.executor.run(jobs, watch=watch, stop=stop, done=done)
    return tuple(known for known in found.values() if known is not None)


def fresh_token(options: RunOptions) -> str:
    """A part of all keys of a fresh run, so that it finds nothing in the store; empty for every other run."""
    return f"-{uuid.uuid4().hex}" if options.fresh else ""


def has_work(workplace: Workplace, options: RunOptions) -> bool:
    """Whether something of some cell would run."""
    return options.fresh or not all(is_done(workplace.store, cell.key) for cell in workplace.cells)


def worked_of(cell: Cell, ended: Exit) -> Worked:
    """How the child of a cell ended, as a result: a crash, a time-out, too much memory, a refusal, or an outcome."""
    if ended.kind == "ok" and ended.result is not None:
        outcome = decode(CellOutcome, ended.result)
        return Worked(cell=cell, status="ok", seconds=ended.seconds, outcome=outcome)
    status = _STATUS[ended.kind]
    reason, hint = (ended.error.message, ended.error.hint) if ended.error else (ended.kind, "")
    return Worked(cell=cell, status=status, reason=reason, hint=hint, log_tail=ended.log_tail, seconds=ended.seconds)


_STATUS: Mapping[ExitKind, Status] = MappingProxyType(
    {
        "ok": "failed",  # no result, though it said ok
        "failed": "failed",
        "stopped": "failed",
        "crashed": "crashed",
        "timeout": "timeout",
        "memory": "memory",
    }
)


def _without_work(cell: Cell, workplace: Workplace, options: RunOptions) -> Worked | None:
    """The cell where nothing has to run: it is in the store whole, cannot be built here, or was refused before."""
    if not options.fresh and (known := recall_cell(workplace.store, cell.key)) is not None:
        outcome = CellOutcome(engine=known.engine, evaluation=known.evaluation)
        return Worked(cell=cell, status="ok", outcome=outcome, evidence=known.evidence)
    state = workplace.offers[cell.target.name].availability.build
    if isinstance(state, Unavailable):
        return Worked(cell=cell, status="unavailable", reason=state.reason, hint=state.hint)
    if not options.fresh and (told := recall_refusal(workplace.store, cell.key)) is not None:
        return Worked(
            cell=cell, status="failed", reason=told.reason, hint=told.hint, log_tail=told.log_tail, refused_before=True
        )
    return None


def _references(cells: list[Cell], workplace: Workplace, fresh: str) -> list[Job]:
    """One job per model whose reference outputs somebody will need, so that no cell has to begin with them."""
    from qpipe.execute.work.reference import has_reference

    models = {cell.model.digest: cell for cell in cells}
    return [
        Job(
            label=f"{cell.model.name}/float reference",
            entry=REFERENCE,
            request=encode(
                ReferenceJob(
                    store=workplace.store.location, model=cell.model, data=cell.data, role=cell.role, fresh=fresh
                )
            ),
            limits=Limits(timeout_s=3600.0, memory_bytes=cell.target.limits.memory_bytes),
            files=input_files(cell.data, cell.model),
        )
        for cell in models.values()
        if fresh or not has_reference(workplace.store, cell)
    ]


def _cell_job(cell: Cell, workplace: Workplace, fresh: str) -> Job:
    request = CellJob(store=workplace.store.location, cell=cell, fresh=fresh)
    return Job(
        label=cell.label,
        entry=CELL,
        request=encode(request),
        limits=cell.target.limits,
        key=cell.key,
        target=cell.target.name,
        files=input_files(cell.data, cell.model),
    )
