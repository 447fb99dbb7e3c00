"""Runs that a killed process left RUNNING: nobody else would ever end them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.tracking.experiment import Experiment
from qpipe.tracking.owners import read_owner

if TYPE_CHECKING:
    from mlflow.entities import Run

HEARTBEAT = "qpipe.heartbeat"
"""Tag of a parent run: who works on it, as `pid@host time boot/namespace/start` (`qpipe.tracking.owners`)."""


def end_orphans(where: Experiment, run_id: str) -> tuple[str, ...]:
    """Mark parent runs KILLED, and their cells, whose process was here and is known to be gone; a line about each.

    The line of `run_id`, which is about to go on, says so; it says too where another process works on that very run.
    """
    found = where.client.search_runs(
        [where.experiment_id], "attributes.status = 'RUNNING' and tags.`qpipe.role` = 'pipeline'"
    )
    return tuple(line for run in found if (line := _look(where, run, run_id)))


def _look(where: Experiment, run: Run, run_id: str) -> str:
    owner = read_owner(run.data.tags.get(HEARTBEAT, ""))
    ours = run.data.tags.get("qpipe.run_id") == run_id
    if owner is None or owner.is_this_process():
        return ""
    pid, at = owner.pid, owner.at
    if not owner.is_gone():
        both = ours and owner.is_near()
        return f"process {pid} works on this very run since {at}: both log the same results" if both else ""
    _kill(where, run)
    end = "this one goes on from what it finished" if ours else "marked KILLED in MLflow"
    return f"the run {run.info.run_id} of process {pid}, which is gone, did not end since {at}: {end}"


def _kill(where: Experiment, run: Run) -> None:
    parent = run.info.run_id
    cells = where.client.search_runs(
        [run.info.experiment_id], f"attributes.status = 'RUNNING' and tags.mlflow.parentRunId = '{parent}'"
    )
    for one in (*cells, run):
        where.client.set_terminated(one.info.run_id, status="KILLED")
