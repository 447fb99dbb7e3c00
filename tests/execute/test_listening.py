"""What a guard hears and sees of a child, without one."""

import os
import threading

import pytest

from qpipe.execute.children import group
from qpipe.execute.children.guard import _Child
from qpipe.execute.children.progress import Lines, PipeProgress, ProgressEvent
from qpipe.records.target import Limits


class Ended:
    """A child that had ended before its guard looked for the first time."""

    pid = os.getpid()

    def has_ended(self):
        return True

    def reap(self):
        return 0, 0.0


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for descriptor in ends:
        os.close(descriptor)


def test_lines_are_whole_however_they_are_cut():
    lines = Lines()
    data = b'["load", 1, 9]\n["run", 2, null]\n'
    events = [event for place in range(len(data)) for event in lines.feed(data[place : place + 1])]
    assert events == list(Lines().feed(data))
    assert events[1] == ProgressEvent(step="run", done=2, total=None)
    assert Lines().feed(b"[") == ()


def test_what_a_child_said_at_its_end_is_heard(pipe):
    read, write = pipe
    progress = PipeProgress(write)
    progress.step("last", total=3)
    heard = []
    child = _Child(Ended(), read)
    limits = Limits(timeout_s=1, memory_bytes=1 << 30)
    assert child.watch(limits, heard.append, threading.Event()) == "ok"
    assert heard == [ProgressEvent(step="last", done=0, total=3)]


def test_the_peak_is_kept_when_memory_is_given_back(pipe, monkeypatch):
    child, resident = _Child(Ended(), pipe[0]), iter([5 << 40, 1])
    monkeypatch.setattr(group, "resident_bytes", lambda _: next(resident))
    assert [child._resident_bytes(), child._resident_bytes()] == [5 << 40, 1]
    assert child.peak_rss_bytes == 5 << 40
