"""What `kill -9` leaves RUNNING in MLflow is ended by the next run on that machine, which says so."""

import os
import socket
import subprocess
import sys

import pytest

from qpipe.errors import TrackingError

HERE = socket.gethostname()


@pytest.fixture(scope="module")
def gone():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def left(tracker, run_id, owner):
    """A run of `owner`, with a cell that is being logged."""
    parent = tracker.start(run_id, "digits", {})
    tracker.client.set_tag(parent, "qpipe.heartbeat", f"{owner} 2026-01-01T00:00:00+00:00")
    cell = tracker.client.create_run(tracker.experiment_id, tags={"mlflow.parentRunId": parent})
    return parent, cell.info.run_id


def states(tracker, *runs):
    return [tracker.client.get_run(run).info.status for run in runs]


def test_a_run_of_a_process_that_is_gone(tracker, gone):
    runs = left(tracker, "run-1", f"{gone}@{HERE}")
    (line,) = tracker.end_orphans("run-2")
    assert line.startswith(f"the run {runs[0]} of process {gone}, which is gone, did not end since 2026-01-01")
    assert line.endswith("marked KILLED in MLflow")
    assert states(tracker, *runs) == ["KILLED", "KILLED"]
    assert tracker.end_orphans("run-2") == ()


def test_the_run_that_goes_on(tracker, gone):
    runs = left(tracker, "run-1", f"{gone}@{HERE}")
    (line,) = tracker.end_orphans("run-1")
    assert line.endswith("goes on from what it finished")
    assert tracker.start("run-1", "digits", {}) == runs[0]
    assert states(tracker, *runs) == ["RUNNING", "KILLED"]


@pytest.mark.parametrize(
    "owner",
    [f"{os.getppid()}@{HERE}", "1@elsewhere", f"{os.getpid()}@{HERE}", "nonsense"],
    ids=["parent", "elsewhere", "this process", "nonsense"],
)
def test_a_run_that_may_be_alive_is_left_alone(tracker, owner):
    runs = left(tracker, "run-1", owner)
    assert tracker.end_orphans("run-2") == ()
    assert states(tracker, *runs) == ["RUNNING", "RUNNING"]


def test_two_processes_at_the_same_run(tracker):
    left(tracker, "run-1", f"{os.getppid()}@{HERE}")
    (line,) = tracker.end_orphans("run-1")
    assert line.startswith(f"process {os.getppid()} works on this very run since 2026-01-01")


@pytest.mark.parametrize(
    "call", [lambda lost: lost.end_orphans("run-1"), lambda lost: lost.start("run-1", "x", {})], ids=["end", "start"]
)
def test_mlflow_lost_before_there_is_anything_to_sync(tracker, monkeypatch, call):
    def gone(*_: object, **__: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(tracker.client, "search_runs", gone)
    with pytest.raises(TrackingError, match="gone") as caught:
        call(tracker)
    assert caught.value.hint == "once MLflow answers, run the same command again: it goes on from what is finished"
