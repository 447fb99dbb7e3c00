"""Runs that a killed process left RUNNING: nobody else would ever end them."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING

from qpipe.tracking.experiment import Experiment

if TYPE_CHECKING:
    from mlflow.entities import Run

HEARTBEAT = "qpipe.heartbeat"
"""Tag of a parent run: who works on it, as `pid@host time`."""
_OWNER = re.compile(r"(?P<pid>\d+)@(?P<host>\S+) (?P<at>\S+)")


def end_orphans(where: Experiment, run_id: str) -> tuple[str, ...]:
    """Mark parent runs KILLED, and their cells, whose process was on this machine and is gone; a line about each.

    The line of `run_id`, which is about to go on, says so; it says too where another process works on that very run.
    """
    found = where.client.search_runs(
        [where.experiment_id], "attributes.status = 'RUNNING' and tags.`qpipe.role` = 'pipeline'"
    )
    return tuple(line for run in found if (line := _look(where, run, run_id)))


def _look(where: Experiment, run: Run, run_id: str) -> str:
    owner = _OWNER.fullmatch(run.data.tags.get(HEARTBEAT, ""))
    ours = run.data.tags.get("qpipe.run_id") == run_id
    if owner is None or owner["host"] != socket.gethostname() or int(owner["pid"]) == os.getpid():
        return ""
    pid, at = owner["pid"], owner["at"]
    if is_alive(int(pid)):
        return f"process {pid} works on this very run since {at}: both log the same results" if ours else ""
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


def is_alive(pid: int) -> bool:
    """Whether there is a process of that id, of whomever."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
