"""The local executor: several guarded children at a time, and a stop that reaches all of them."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from qpipe.errors import StoreError
from qpipe.execute.children.watch import Silence
from qpipe.execute.local import Job, run_job, run_jobs
from qpipe.records.target import Limits

LIMITS = Limits(timeout_s=60.0)


def say(request: str, progress: object) -> str:
    """Entry of a child."""
    return request.upper()


def sleep(request: str, progress: object) -> str:
    """Entry of a child that is in no hurry."""
    time.sleep(60)
    return request


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


class Listener(Silence):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def begin(self, label: str) -> None:
        self.told.append((label, "begin"))

    def end(self, label: str, outcome: str) -> None:
        self.told.append((label, outcome))


def job(label: str, entry: str = "say") -> Job:
    return Job(label=label, entry=f"test_local_jobs:{entry}", request=label, limits=LIMITS)


def test_all_jobs_run_and_each_is_told(tmp_path):
    found, listener = {}, Listener()
    run_jobs(
        [job("a"), job("b"), job("c")],
        folder=tmp_path / "tmp",
        workers=2,
        watch=listener,
        stop=threading.Event(),
        done=lambda one, ended: found.__setitem__(one.label, ended.result),
    )
    assert found == {"a": "A", "b": "B", "c": "C"}
    assert sorted(listener.told) == sorted([(name, what) for name in "abc" for what in ("begin", "ok")])
    assert list((tmp_path / "tmp").iterdir()) == []


def test_stop_ends_what_runs_and_starts_no_more(tmp_path):
    found, stop = {}, threading.Event()
    threading.Timer(0.7, stop.set).start()
    began = time.monotonic()
    run_jobs(
        [job("a", "sleep"), job("b", "sleep"), job("c", "sleep")],
        folder=tmp_path,
        workers=2,
        watch=Silence(),
        stop=stop,
        done=lambda one, ended: found.__setitem__(one.label, ended.kind),
    )
    assert found == {"a": "stopped", "b": "stopped"}
    assert time.monotonic() - began < 20
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_caller_stops_the_others(tmp_path):
    def done(one: Job, ended: object) -> None:
        raise LookupError(one.label)

    began = time.monotonic()
    with pytest.raises(LookupError, match="a"):
        run_jobs(
            [job("a"), job("b", "sleep")],
            folder=tmp_path,
            workers=2,
            watch=Silence(),
            stop=threading.Event(),
            done=done,
        )
    assert time.monotonic() - began < 30
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_swept_by_the_store(tmp_path):
    """A work folder whose owner is gone: its lock is free."""
    from qpipe.store import Store

    left = tmp_path / "store" / "tmp" / "0123"
    left.mkdir(parents=True)
    (left / "log.txt").write_text("half")
    left.with_suffix(".lock").touch()
    Store(tmp_path / "store").put_bytes(b"anything")
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


def test_one_job_gives_its_exit(tmp_path):
    ended = run_job(job("a"), tmp_path, Silence(), threading.Event())
    assert (ended.kind, ended.result, ended.code) == ("ok", "A", 0)


def test_no_room_for_the_work_folder_is_told_of_the_store(tmp_path, monkeypatch):
    """As on a read-only file system: `qpipe explain` looks at a store that it cannot write to."""

    def refuse(_home: Path) -> object:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path))

    monkeypatch.setattr("qpipe.execute.local.scratch", refuse)
    with pytest.raises(StoreError, match="cannot make a working folder in the store"):
        run_job(job("a"), tmp_path, Silence(), threading.Event())
