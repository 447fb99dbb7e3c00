"""What a child left behind, as its caller reads it: no process is started here."""

import json
import os
import signal
import tempfile
from dataclasses import asdict

import pytest

from qpipe.execute.children import child, group
from qpipe.execute.children.exits import ExitError, Usage, read_exit
from qpipe.records.target import Limits

LIMITS = Limits(timeout_s=12.5, memory_bytes=300 << 20)
WRONG = ExitError(type="DataError", message="no rows", hint="give some", code=2, lasts=True)


def left(folder, *, status=0, ended="ok", answer=None, log=b"", peak=7):
    (folder / "log.txt").write_bytes(log)
    if answer is not None:
        (folder / "result.json").write_text(json.dumps(answer))
    usage = Usage(status=status, seconds=2.0, cpu_seconds=1.5, peak_rss_bytes=peak)
    return read_exit(folder, ended, usage, LIMITS)


@pytest.mark.parametrize("status", [0, -signal.SIGKILL])
def test_a_whole_answer_is_taken_of_who_left_or_was_killed_after_it(tmp_path, status):
    found = left(tmp_path, status=status, answer={"result": "fine", "peak_rss_bytes": 9})
    assert (found.kind, found.result, found.error) == ("ok", "fine", None)
    assert (found.code, found.signal) == ((0, None) if status == 0 else (None, 9))
    assert (found.seconds, found.cpu_seconds) == (2.0, 1.5)


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (-signal.SIGSEGV, "crashed with SIGSEGV", "vendor library"),
        (-signal.SIGKILL, "killed from outside by SIGKILL", "out-of-memory killer"),
        (7, "exited with status 7 and without a result", "an entry returns"),
    ],
)
def test_who_leaves_without_an_answer_has_crashed(tmp_path, status, message, hint):
    found = left(tmp_path, status=status)
    assert (found.kind, found.result) == ("crashed", None)
    assert found.error is not None
    assert (found.error.type, found.error.message, found.error.code) == ("Crash", message, 5)
    assert hint in found.error.hint
    assert not found.error.lasts


@pytest.mark.parametrize("status", [-signal.SIGSEGV, 3])
def test_an_answer_is_not_taken_of_who_crashed(tmp_path, status):
    assert left(tmp_path, status=status, answer={"result": "fine", "peak_rss_bytes": 9}).kind == "crashed"


def test_an_error_keeps_all_that_its_child_said(tmp_path):
    found = left(tmp_path, answer={"error": asdict(WRONG), "peak_rss_bytes": 9})
    assert (found.kind, found.result, found.error) == ("failed", None, WRONG)
    short = {"type": "MemoryError", "message": "too much", "hint": "", "code": 5}
    assert left(tmp_path, answer={"error": short, "peak_rss_bytes": 9}).kind == "memory"


@pytest.mark.parametrize(
    ("ended", "kind", "message", "code"),
    [
        ("timeout", "Timeout", "stopped at its limit of 12.5 s", 5),
        ("memory", "Memory", "stopped with 512 MiB resident, above its limit of 300 MiB", 5),
        ("stopped", "Stopped", "stopped on request", 130),
    ],
)
def test_who_was_stopped_gives_no_result_even_with_an_answer(tmp_path, ended, kind, message, code):
    answer = {"result": "too late", "peak_rss_bytes": 9}
    found = left(tmp_path, status=-9, ended=ended, answer=answer, peak=512 << 20)
    assert (found.kind, found.result) == (ended, None)
    assert found.error is not None
    assert (found.error.type, found.error.message, found.error.code) == (kind, message, code)


@pytest.mark.parametrize(("seen", "own"), [(5, 9), (9, 5)])
def test_the_peak_is_the_larger_of_what_was_seen_and_what_it_says(tmp_path, seen, own):
    assert left(tmp_path, peak=seen, answer={"result": "", "peak_rss_bytes": own}).peak_rss_bytes == 9


def test_of_a_long_log_the_end_is_kept_whatever_its_bytes(tmp_path):
    found = left(tmp_path, log=b"first\n" + b"x" * 5000 + "é".encode()[1:] + b"last\n\n").log_tail
    assert found.endswith("x\ufffdlast")
    assert len(found) == 4000 - 2


def test_an_answer_names_the_peak_of_its_process(capsys, monkeypatch):
    monkeypatch.syspath_prepend(os.path.dirname(__file__))  # noqa: PTH120  (a str)
    read, write = os.pipe()
    try:
        answer = child._answer("guard_entries:echo", "ab", write)
    finally:
        os.close(read)
        os.close(write)
    assert answer["result"] == "ba"
    assert answer["peak_rss_bytes"] >= group.resident_bytes((os.getpid(),)) > 5 << 20
    assert capsys.readouterr().out == "to stdout\n"


def test_temporary_files_stay_in_the_work_folder_wherever_the_work_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", "/known/before/the/fork")
    (tmp_path / "work").mkdir()
    child._keep_temporary_files("work")
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(tmp_path / "work")


def test_what_is_gone_is_nothing(monkeypatch):
    gone = 2**22 + 1
    assert (group.state(gone), group.resident_bytes((gone,)), group.peak_resident_bytes(gone)) == ("", 0, 0)
    group.kill(gone)
    assert group.state(os.getpid()) == "R"
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (as the code does)
    assert group.peak_resident_bytes(os.getpid()) > 0
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  (as the code does)


def test_a_state_is_read_past_any_name(tmp_path):
    """A process may call itself `a) Z (b`."""
    import ctypes

    name = ctypes.create_string_buffer(16)
    libc = ctypes.CDLL(None)
    libc.prctl(16, name, 0, 0, 0)  # PR_GET_NAME
    try:
        libc.prctl(15, b"a) Z (b", 0, 0, 0)  # PR_SET_NAME
        assert group.state(os.getpid()) == "R"
    finally:
        libc.prctl(15, name, 0, 0, 0)
