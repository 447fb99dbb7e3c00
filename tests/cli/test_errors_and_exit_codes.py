"""Errors become one line and a documented code, in one place for all commands."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

from qpipe.allowance import check_threads
from qpipe.cli.guarded import READER_GONE, run_app, say_error
from qpipe.errors import UnavailableError

MAIN = [sys.executable, "-m", "qpipe"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument 'pipeline'"),
        (["run", "--frsh", "x.yaml"], "--frsh"),
        (["run", "x.yaml", "--junit", "none/ci.xml"], "--junit none/ci.xml: no file can be written there"),
        (["run", "x.yaml", "--workers", "0"], "--workers"),
        (["promote", "last", "--force"], "--force and --reason go together"),
        (["schema", "resul"], "no schema 'resul'"),
        (["init", "missing.onnx"], "no such model file"),
        (["new-target", "x" * 300], "is no name for a target"),
        (["new-target", "x", "--folder", "x" * 300], "File name too long"),
    ],
)
def test_bad_usage_is_a_line_and_code_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_app(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, *rest = err.splitlines()
    assert first.startswith("error: ")
    assert words in first
    assert all(line.startswith("hint: ") for line in rest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "page"), [(["rnu"], "qpipe"), (["run"], "qpipe run"), (["run", "-x"], "qpipe run")]
)
def test_the_page_of_the_command_that_was_meant_is_named(arguments, page, capsys):
    assert run_app(arguments) == 2
    assert capsys.readouterr().err.splitlines()[1] == f"hint: see {page} --help"


@pytest.mark.parametrize("arguments", [["run", "x.yaml"], ["plan", "x.yaml"], ["init", "x.onnx"], ["gate", "last"]])
def test_as_json_the_error_is_one_object(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_app([*arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert set(error) == {"message", "hint", "code"}
    assert error["code"] == 2
    assert err == ""


def test_a_bug_keeps_its_traceback(capsys, monkeypatch):
    monkeypatch.setattr("qpipe.flow.workplace.open_registry", lambda *_: 1 / 0)
    assert run_app(["targets"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-2:] == [
        "error: ZeroDivisionError: division by zero",
        "hint: this is a bug in qpipe: please report it",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_in_any_command_is_said(capsys, monkeypatch, as_json):
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qpipe.flow.workplace.open_registry", press)
    assert run_app(["targets", *(["--json"] if as_json else [])]) == 130
    out, err = capsys.readouterr()
    if as_json:
        assert json.loads(out)["error"]["code"] == 130
    else:
        assert "error: interrupted" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_and_a_closed_terminal_are_ctrl_c(capsys, monkeypatch, number):
    monkeypatch.setattr("qpipe.flow.workplace.open_registry", lambda *_: signal.raise_signal(number))
    before = signal.getsignal(number)
    assert run_app(["targets", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["error"]["code"] == 130
    assert signal.getsignal(number) == before


def test_what_nohup_ignores_stays_ignored(monkeypatch):
    monkeypatch.setattr("qpipe.flow.workplace.open_registry", lambda *_: signal.raise_signal(signal.SIGHUP) or 1 / 0)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_app(["targets"]) == 1  # it went on
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_while_the_command_line_is_imported(capsys, monkeypatch):
    def press(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("qpipe.cli.guarded._run", press)
    assert run_app(["targets", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["error"]["code"] == 130


def test_a_reader_that_leaves_is_no_success():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*MAIN, "schema"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (READER_GONE, "")


def test_nobody_at_stderr_changes_no_exit_code():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*MAIN, "rnu"], stdout=subprocess.PIPE, stderr=write, check=False)
    os.close(write)
    assert (done.returncode, done.stdout) == (2, b"")


def test_progress_on_a_terminal_that_was_closed_ends_no_work(monkeypatch):
    from qpipe.cli.guarded import Unheard
    from qpipe.cli.screen import Screen

    ours, its = pty.openpty()
    with os.fdopen(its, "w") as terminal:
        monkeypatch.setattr("sys.stderr", Unheard(terminal))
        with Screen() as screen:
            screen.begin("a cell")
            os.close(ours)
            screen.end("a cell", "ok")
            screen.say("more")


def test_stdout_on_a_full_disk_is_said_on_stderr(monkeypatch, capsys):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert run_app(["schema"]) == 5
        assert run_app(["rnu", "--json"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: [Errno 28] No space left on device")
    assert "error: No such command 'rnu'" in err
    assert "Traceback" not in err


def test_a_locale_without_our_signs_costs_the_signs(monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", narrow)
    monkeypatch.setattr("qpipe.flow.workplace.open_registry", lambda *_: print("float → int8"))
    assert run_app(["plugins"]) == 1  # there is no registry
    narrow.flush()
    assert narrow.buffer.getvalue().startswith(b"float ? int8")


def test_nobody_at_stdout_is_no_success_and_no_bug(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", None)
    assert run_app(["schema"]) == READER_GONE
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "said", "todo"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/there"), "[Errno 28] No space left", "make room there"),
        (OSError(errno.EMFILE, "Too many open files", "/proc"), "[Errno 24] Too many open files", "raise `ulimit -n`"),
        (OSError(errno.ENFILE, "Too many open files in system"), "[Errno 23] Too many open", "raise fs.file-max"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "[Errno 12] Cannot allocate", "fewer --workers"),
        (MemoryError(), "no more memory", "fewer --workers"),
        (RuntimeError("can't start new thread"), "can't start new thread", "raise `ulimit -u`"),
    ],
    ids=["disk", "files", "files of the machine", "memory", "memory of Python", "threads"],
)
def test_what_is_used_up_is_no_bug(monkeypatch, capsys, error, said, todo):
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("qpipe.flow.workplace.open_registry", full)
    assert run_app(["targets"]) == 5
    line, hint = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert hint.startswith("hint: ")
    assert todo in hint


def test_no_more_processes_is_no_bug_and_a_lock_that_is_taken_is(monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess._fork_exec", refuse)
    monkeypatch.setattr("qpipe.flow.workplace.open_registry", lambda *_: subprocess.run(["true"], check=True))
    assert run_app(["targets"]) == 5
    assert "raise `ulimit -u`" in capsys.readouterr().err
    monkeypatch.setattr("qpipe.flow.workplace.open_registry", refuse)
    assert run_app(["targets"]) == 1


def test_too_few_processes_are_told_before_openblas_calls_that_an_interruption(monkeypatch, capsys):
    """It raises SIGINT where it gets no threads."""
    monkeypatch.setattr("resource.getrlimit", lambda kind: (3, 3) if kind == resource.RLIMIT_NPROC else (-1, -1))

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    assert run_app(["doctor"]) == 5
    line, hint = capsys.readouterr().err.splitlines()
    assert line.startswith("error: `ulimit -u` allows 3 processes and threads of this user")
    assert "ulimit -u" in hint


@pytest.mark.parametrize(
    ("own", "at"),
    [("0::/", ""), ("0::/docker/abc", ""), ("8:pids:/docker/abc", "pids"), ("8:pids:/docker/abc", "pids/docker/abc")],
    ids=["cgroup 2", "cgroup 2 of the host", "cgroup 1", "cgroup 1 of the host"],
)
def test_too_few_processes_of_a_container_are_told_as_that(own, at, tmp_path, monkeypatch):
    (tmp_path / "self").write_text(f"4:memory:/elsewhere\n{own}\n")
    (folder := tmp_path / at).mkdir(parents=True, exist_ok=True)
    (folder / "pids.max").write_text("5\n")
    monkeypatch.setattr("qpipe.allowance._CGROUP", tmp_path / "self")
    monkeypatch.setattr("qpipe.allowance._CGROUPS", tmp_path)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(UnavailableError, match=r"container \(or cgroup\) allows 5 processes") as told:
        check_threads()
    assert "--pids-limit" in told.value.hint
    (folder / "pids.max").write_text("max\n")
    check_threads()


@pytest.mark.parametrize("command", [["plan", "small.yaml"], ["doctor"], ["history", "m"], ["gate", "last"]])
def test_a_working_folder_that_is_gone_is_no_bug(tmp_path, monkeypatch, capsys, command):
    write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    command = [str(tmp_path / one) if one.endswith("yaml") else one for one in command]
    assert run_app(command) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "error: the working folder is no longer there",
        "hint: cd to a folder that is",
    ]


@pytest.mark.parametrize(("option", "kib"), [("-v", 300_000), ("-d", 250_000)])
def test_too_little_address_space_is_told_before_the_import_that_would_never_end(option, kib):
    command = [*MAIN, "gates", "--json"]
    limited = ["sh", "-c", f'ulimit {option} {kib}; exec "$@"', "sh", *command]
    done = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 5, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["message"].startswith(f"`ulimit {option}` allows {kib >> 10} MiB of address space")
    assert error["hint"].startswith(f"`ulimit {option} unlimited`")


def test_an_error_without_a_hint_is_one_line(capsys):
    assert say_error("what was found", "", 2, as_json=False) == 2
    assert capsys.readouterr().err == "error: what was found\n"


def test_ci_gets_a_line_for_a_pipeline_that_cannot_be_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_app(["run", "x.yaml", "--junit", "ci.xml"]) == 2
    assert 'message="x.yaml: no such pipeline file"' in (tmp_path / "ci.xml").read_text()
    assert run_app(["run", "x.yaml", "y.yaml", "--junit", "ci.xml", "--json"]) == 2
    assert 'tests="2" failures="0" errors="2"' in (tmp_path / "ci.xml").read_text()
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


@pytest.mark.parametrize(
    ("encoding", "message", "told"),
    [("utf-8", "mödel.onnx", False), ("iso8859-1", "mödel.onnx", True), ("ascii", "model.onnx", False)],
)
def test_a_locale_that_names_files_otherwise_is_told_with_their_names(encoding, message, told, monkeypatch, capsys):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    assert say_error(f"{message}: no such model file", "give the path", 2, as_json=False) == 2
    hint = f"hint: give the path; names of files are {encoding} under this locale: set PYTHONUTF8=1"
    assert (hint in capsys.readouterr().err) is told
