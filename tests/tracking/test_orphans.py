"""What `kill -9` leaves RUNNING in MLflow is ended by the next run on that machine, which says so."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qpipe.errors import TrackingError
from qpipe.tracking.owners import Owner, read_owner, this_process

SINCE = "2026-01-01T00:00:00+00:00"
HERE = replace(this_process(), at=SINCE)


def started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


PARENT = replace(HERE, pid=os.getppid(), start=started(os.getppid()))


@pytest.fixture(scope="module")
def gone() -> Owner:
    """A process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    start = started(process.pid)
    process.wait()
    return replace(HERE, pid=process.pid, start=start)


def left(tracker, run_id, owner):
    """A run of `owner`, with a cell that is being logged."""
    parent = tracker.start(run_id, "digits", {})
    tracker.client.set_tag(parent, "qpipe.heartbeat", str(owner))
    cell = tracker.client.create_run(tracker.experiment_id, tags={"mlflow.parentRunId": parent})
    return parent, cell.info.run_id


def states(tracker, *runs):
    return [tracker.client.get_run(run).info.status for run in runs]


def test_a_run_of_a_process_that_is_gone(tracker, gone):
    runs = left(tracker, "run-1", gone)
    (line,) = tracker.end_orphans("run-2")
    assert line.startswith(f"the run {runs[0]} of process {gone.pid}, which is gone, did not end since 2026-01-01")
    assert line.endswith("marked KILLED in MLflow")
    assert states(tracker, *runs) == ["KILLED", "KILLED"]
    assert tracker.end_orphans("run-2") == ()


def test_the_run_that_goes_on(tracker, gone):
    runs = left(tracker, "run-1", gone)
    (line,) = tracker.end_orphans("run-1")
    assert line.endswith("goes on from what it finished")
    assert tracker.start("run-1", "digits", {}) == runs[0]
    assert states(tracker, *runs) == ["RUNNING", "KILLED"]


def test_a_pid_that_another_process_has_now(tracker):
    runs = left(tracker, "run-1", replace(PARENT, start="1"))
    assert len(tracker.end_orphans("run-2")) == 1
    assert states(tracker, *runs) == ["KILLED", "KILLED"]


@pytest.mark.parametrize(
    "change",
    [
        {"host": "elsewhere"},
        {"place": (HERE.place[0], "1")},
        {"place": ("00000000-0000-0000-0000-000000000000", HERE.place[1])},
        {"place": None, "start": None},
    ],
    ids=["another host", "another container of that host name", "another machine of that host name", "an older qpipe"],
)
def test_of_a_process_that_cannot_be_seen_from_here_nothing_is_said(tracker, gone, change):
    runs = left(tracker, "run-1", replace(gone, **change))
    assert tracker.end_orphans("run-1") == tracker.end_orphans("run-2") == ()
    assert states(tracker, *runs) == ["RUNNING", "RUNNING"]


def test_what_proc_does_not_show_is_taken_as_alive(monkeypatch):
    monkeypatch.setattr("qpipe.tracking.owners._stat", lambda _: [])
    assert this_process().place is None
    assert not replace(PARENT, start="1").is_gone()


def test_an_owner_is_read_as_it_was_written():
    assert read_owner(str(HERE)) == HERE
    assert read_owner(f"12@there {SINCE}") == Owner(pid=12, host="there", at=SINCE, place=None, start=None)


@pytest.mark.parametrize("owner", [PARENT, HERE, "nonsense"], ids=["parent", "this process", "nonsense"])
def test_a_run_that_may_be_alive_is_left_alone(tracker, owner):
    runs = left(tracker, "run-1", owner)
    assert tracker.end_orphans("run-2") == ()
    assert states(tracker, *runs) == ["RUNNING", "RUNNING"]


def test_two_processes_at_the_same_run(tracker):
    left(tracker, "run-1", PARENT)
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
