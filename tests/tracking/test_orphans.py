"""What `kill -9` leaves RUNNING in MLflow is ended by the next run on that machine, which says so."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from qpipe.errors import TrackingError
from qpipe.tracking.holds import holding
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


def left(tracker, run_id, owner, hold=""):
    """A run of `owner`, with a cell that is being logged."""
    parent = tracker.start(run_id, "digits", {}, hold=hold)
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
    why = tracker.client.get_run(runs[0]).data.tags["qpipe.ended"]
    assert why.startswith(f"process {gone.pid}@{gone.host}, at work since 2026-01-01")
    assert tracker.end_orphans("run-2") == ()


def test_the_run_that_goes_on(tracker, gone):
    runs = left(tracker, "run-1", gone)
    (line,) = tracker.end_orphans("run-1")
    assert line.endswith("goes on from what it finished")
    assert tracker.start("run-1", "digits", {}) == runs[0]
    assert states(tracker, *runs) == ["RUNNING", "KILLED"]
    assert "qpipe.ended" not in tracker.client.get_run(runs[0]).data.tags


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


OTHER_BOOT = ("00000000-0000-0000-0000-000000000000", HERE.place[1])
OTHER_SPACE = (HERE.place[0], "1")


def test_an_engine_that_was_being_uploaded_is_failed_until_it_is_logged_again(tracker, make, engine, gone):
    parent, cell = left(tracker, "run-1", gone)
    made = {"name": "half", "source_run_id": cell, "tags": {"qpipe.engine": engine.digest}}
    model = tracker.client.create_logged_model(tracker.experiment_id, **made).model_id

    tracker.end_orphans("run-1")
    assert tracker.client.get_logged_model(model).status == "FAILED"

    tracker.start("run-1", "digits", {})
    assert tracker.log_cell(parent, make.result(engine)).model_id == model
    assert tracker.client.get_logged_model(model).status == "READY"


@pytest.mark.parametrize(
    ("change", "ended"),
    [
        ({"place": OTHER_BOOT}, True),
        ({"place": OTHER_SPACE, "host": "elsewhere"}, True),
        ({"place": OTHER_BOOT, "host": "elsewhere"}, False),
        ({"place": None, "start": None}, False),
    ],
    ids=["before a reboot", "another container of this machine", "another machine", "nothing known"],
)
def test_a_file_in_the_store_that_was_let_go_proves_the_end(tracker, tmp_path, change, ended):
    with holding(tmp_path) as hold:
        runs = left(tracker, "run-1", replace(HERE, **change), hold.tag)
        assert tracker.end_orphans("run-2", store=tmp_path) == ()  # held
    assert len(tracker.end_orphans("run-2", store=tmp_path)) == ended
    assert states(tracker, *runs) == ["KILLED" if ended else "RUNNING"] * 2
    assert hold.path.exists() != ended


def _copied(store, hold):
    shutil.copytree(store, store.with_name("copy"))
    return store.with_name("copy"), hold.tag


def _removed(store, hold):
    hold.end()
    return store, hold.tag


@pytest.mark.parametrize(
    "change",
    [_copied, _removed, lambda store, _: (store, "nonsense"), lambda *held: (None, held[1].tag)],
    ids=["a copy of the store", "no such file", "no tag of ours", "no store"],
)
def test_what_proves_nothing(tracker, tmp_path, change):
    with holding(tmp_path / "store") as hold:
        pass
    store, tag = change(tmp_path / "store", hold)
    runs = left(tracker, "run-1", replace(HERE, place=OTHER_BOOT), tag)
    assert tracker.end_orphans("run-2", store=store) == ()
    assert states(tracker, *runs) == ["RUNNING", "RUNNING"]


def test_files_that_nobody_holds_for_months_are_cleared(tmp_path):
    paths = []
    for age_s in (0, 100 * 86400):
        with holding(tmp_path) as hold:
            os.utime(hold.path, (time.time() - age_s,) * 2)
            paths.append(hold.path)
    with holding(tmp_path):
        assert [path.exists() for path in paths] == [True, False]


def test_a_run_below_one_of_the_users(tracker, gone):
    other = tracker.client.create_experiment(f"other {tracker.experiment}")
    user = tracker.client.create_run(other).info.run_id
    runs = left(replace(tracker, experiment_id=other), "run-1", gone)
    assert tracker.end_orphans("run-2") == ()
    assert len(tracker.end_orphans("run-2", join=user)) == 1
    assert states(tracker, user, *runs) == ["RUNNING", "KILLED", "KILLED"]


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
