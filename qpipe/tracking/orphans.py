"""Runs that a killed process or a reboot left RUNNING: nobody else would ever end them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.tracking.experiment import Experiment
from qpipe.tracking.holds import HOLD, was_let_go
from qpipe.tracking.owners import Owner, read_owner, this_process

if TYPE_CHECKING:
    from mlflow.entities import Run

HEARTBEAT = "qpipe.heartbeat"
"""Tag of a parent run: who works on it, as `pid@host time boot/namespace/start` (`qpipe.tracking.owners`)."""
ENDED = "qpipe.ended"
"""Tag of a run that another one has ended: why."""


def end_orphans(where: Experiment, run_id: str, store: Path | None, *, join: str | None = None) -> tuple[str, ...]:
    """Mark parent runs KILLED, and their cells, whose process is known to be gone; a line about each.

    That is known of processes that could be seen from here, and of those that have let go of a file in the folder
    `store`. Runs are looked for in this experiment and, where the run is to join another one, in that one's.
    The line of `run_id`, which is about to go on, says so; it says too where another process works on that very run.
    """
    experiments = {where.experiment_id, *([where.experiment_of(join)] if join else [])}
    found = where.client.search_runs(
        sorted(experiments), "attributes.status = 'RUNNING' and tags.`qpipe.role` = 'pipeline'"
    )
    return tuple(line for run in found if (line := _look(where, run, run_id, store)))


def _look(where: Experiment, run: Run, run_id: str, store: Path | None) -> str:
    owner = read_owner(run.data.tags.get(HEARTBEAT, ""))
    ours = run.data.tags.get("qpipe.run_id") == run_id
    if owner is None or owner.is_this_process():
        return ""
    pid, at = owner.pid, owner.at
    if not _is_gone(owner, run, store):
        both = ours and owner.is_near()
        return f"process {pid} works on this very run since {at}: both log the same results" if both else ""
    _kill(where, run, owner)
    end = "this one goes on from what it finished" if ours else "marked KILLED in MLflow"
    return f"the run {run.info.run_id} of process {pid}, which is gone, did not end since {at}: {end}"


def _is_gone(owner: Owner, run: Run, store: Path | None) -> bool:
    if owner.is_near():
        return owner.is_gone()
    return store is not None and was_let_go(run.data.tags.get(HOLD, ""), owner, store)


def _kill(where: Experiment, run: Run, owner: Owner) -> None:
    parent = run.info.run_id
    cells = where.client.search_runs(
        [run.info.experiment_id], f"attributes.status = 'RUNNING' and tags.mlflow.parentRunId = '{parent}'"
    )
    own = this_process()
    gone = f"process {owner.pid}@{owner.host}, at work since {owner.at}, is gone"
    why = f"{gone}: found by {own.pid}@{own.host} at {own.at}"
    where.client.set_tag(parent, ENDED, why)
    for cell in cells:
        _fail_models(where, cell)
    for one in (*cells, run):
        where.client.set_terminated(one.info.run_id, status="KILLED")


def _fail_models(where: Experiment, cell: Run) -> None:
    """An engine that was being uploaded stays PENDING; whoever logs it again fills and finishes it."""
    made = f"source_run_id = '{cell.info.run_id}'"
    for model in where.client.search_logged_models([cell.info.experiment_id], filter_string=made):
        if str(model.status) == "PENDING":
            where.client.finalize_logged_model(model.model_id, "FAILED")
