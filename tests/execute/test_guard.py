"""Guarded children, with real crashes, hangs and memory eaters."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qpipe.execute.children.group import members
from qpipe.execute.children.guard import Exit, ProgressEvent, run_guarded
from qpipe.records.target import Limits

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(autouse=True)
def _entries(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.syspath_prepend(str(ROOT))


def guarded(
    entry: str, request: str, workdir: Path, *, timeout_s: float = 30.0, memory_mib: int = 2048, **more
) -> Exit:
    limits = Limits(timeout_s=timeout_s, memory_bytes=memory_mib << 20)
    return run_guarded(f"guard_entries:{entry}", request, workdir=workdir, limits=limits, **more)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie that waits for its new parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_soon(*pids: int) -> bool:
    end = time.monotonic() + 5
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(is_alive, pids))


def wait_for(path: Path) -> list[int]:
    end = time.monotonic() + 20
    while not path.exists() or not path.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    return [int(pid) for pid in path.read_text().split()]


def test_a_result_comes_back(tmp_path):
    ended = guarded("echo", "naïve ✓\n", tmp_path)
    assert (ended.kind, ended.result, ended.code, ended.signal, ended.error) == ("ok", "\n✓ evïan", 0, None, None)
    assert ended.log_tail == "to stdout\nto stderr"
    assert 0 < ended.cpu_seconds < 5
    assert 0 < ended.seconds < 20
    assert 5 << 20 < ended.peak_rss_bytes < 200 << 20


def test_the_childs_surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = guarded("facts", "", tmp_path)
    assert ended.result is not None
    found = json.loads(ended.result)
    assert found["cwd"] == found["temporary"] == str(tmp_path)
    assert found["core"] == [0, 0]
    assert found["session"]
    assert found["faulthandler"] == "1"
    assert found["modules"] in ([], ["inspect"])
    assert len(found["open"]) == 6  # 0, 1, 2, progress, alive, and the listing itself
    assert found["inherited"] == []


@pytest.mark.parametrize("size", [0, 1, 70_000, 20_000_000])
def test_results_of_any_size(tmp_path, size):
    assert guarded("big", str(size), tmp_path).result == "x" * size


@pytest.mark.parametrize(
    ("job", "how", "message"),
    [
        (("segfault", ""), (None, 11), "crashed with SIGSEGV"),
        (("abort", ""), (None, 6), "crashed with SIGABRT"),
        (("leave", "7"), (7, None), "exited with status 7 and without a result"),
        (("leave", "0"), (0, None), "exited with status 0 and without a result"),
    ],
)
def test_crashes_are_results(tmp_path, job, how, message):
    ended = guarded(*job, tmp_path)
    assert (ended.kind, ended.code, ended.signal, ended.result) == ("crashed", *how, None)
    assert ended.error is not None
    assert (ended.error.message, ended.error.code) == (message, 5)
    if ended.signal:
        assert "Fatal Python error" in ended.log_tail
        assert f"in {job[0]}" in ended.log_tail
    if job[0] == "segfault":
        assert "about to crash" in ended.log_tail


def test_a_crash_while_the_interpreter_is_torn_down_does_not_matter(tmp_path):
    assert guarded("crash_at_exit", "", tmp_path).result == "done"


def test_a_stale_result_is_never_taken(tmp_path):
    assert guarded("echo", "ab", tmp_path).result == "ba"
    assert guarded("leave", "0", tmp_path).kind == "crashed"


@pytest.mark.parametrize(
    ("entry", "kind", "error"),
    [
        ("refuse", "failed", ("node conv1 is too wide", "make it narrower", 5)),
        ("stumble", "failed", ("TypeError: not like this", "", 1)),
        ("wrong_type", "failed", ("TypeError: guard_entries:wrong_type returned int, not str", "", 1)),
        ("exit_politely", "failed", ("SystemExit: 3", "", 1)),
        ("not_there", "failed", ("AttributeError: module 'guard_entries' has no attribute 'not_there'", "", 1)),
        ("ask_too_much", "memory", ("MemoryError: more than this machine can give", "use a smaller batch", 5)),
    ],
)
def test_exceptions_are_results(tmp_path, entry, kind, error):
    ended = guarded(entry, "", tmp_path)
    assert ended.kind == kind
    assert ended.error is not None
    assert (ended.error.message, ended.error.hint, ended.error.code) == error
    assert ("Traceback" in ended.log_tail) == (entry != "refuse")


def test_a_limit_of_the_machine_is_no_bug_of_the_child(tmp_path):
    error = guarded("open_too_many", "", tmp_path).error
    assert error is not None
    assert error.code == 5
    assert "raise `ulimit -n`" in error.hint


def test_a_hang_is_stopped_with_its_grandchild(tmp_path):
    began = time.monotonic()
    ended = guarded("hang", str(tmp_path / "pids"), tmp_path, timeout_s=1.5)
    assert ended.kind == "timeout"
    assert 1.5 <= time.monotonic() - began < 4
    assert (ended.signal, ended.result) == (9, None)
    assert ended.error is not None
    assert ended.error.message == "stopped at its limit of 1.5 s"
    pids = wait_for(tmp_path / "pids")
    assert len(pids) == 2
    assert gone_soon(*pids)


def test_a_grandchild_does_not_outlive_a_good_end(tmp_path):
    ended = guarded("orphan", "", tmp_path)
    assert ended.kind == "ok"
    assert gone_soon(int(ended.result or ""))


@pytest.mark.parametrize("entry", ["eat", "eat_by_grandchildren"])
def test_a_memory_eater_is_stopped(tmp_path, entry):
    ended = guarded(entry, "", tmp_path, memory_mib=300)
    assert (ended.kind, ended.signal) == ("memory", 9)
    assert 300 << 20 < ended.peak_rss_bytes < 900 << 20
    assert ended.error is not None
    assert "above its limit of 300 MiB" in ended.error.message
    assert ended.seconds < 15


def test_the_peak_is_that_of_the_child_not_of_a_large_parent(tmp_path):
    large_parent = b"x" * (400 << 20)
    ended = guarded("peak", "", tmp_path)
    del large_parent
    assert 200 << 20 < ended.peak_rss_bytes < 300 << 20


def test_progress_arrives_in_order(tmp_path):
    events: list[ProgressEvent] = []
    assert guarded("count", "", tmp_path, on_progress=events.append).kind == "ok"
    steps = [event.step for event in events]
    assert sorted(set(steps), key=steps.index) == ["load", "run", "write"]
    assert steps == sorted(steps, key=["load", "run", "write"].index)
    for name in ("load", "run"):
        done = [event.done for event in events if event.step == name]
        assert (done[0], done[-1]) == (0, 1000)
        assert done == sorted(done)
    assert {event.total for event in events} == {1000, None}
    assert len(events) < 200  # a tight loop does not write 2,000 lines


def test_progress_of_many_threads_is_whole(tmp_path):
    events: list[ProgressEvent] = []
    assert guarded("many_threads", "", tmp_path, on_progress=events.append).kind == "ok"
    assert events[-1].done == 800


def test_a_listener_that_raises_stops_the_child(tmp_path):
    def listen(_event):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        guarded("hang", str(tmp_path / "pids"), tmp_path, on_progress=listen)
    assert gone_soon(*wait_for(tmp_path / "pids"))


def test_stop_event(tmp_path):
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(guarded, "hang", str(tmp_path / "pids"), tmp_path, stop=stop)
        pids = wait_for(tmp_path / "pids")
        assert not running.done()
        stop.set()
        ended = running.result(timeout=5)
    assert ended.kind == "stopped"
    assert ended.error is not None
    assert ended.error.code == 130
    assert gone_soon(*pids)


def test_twenty_at_once_from_short_lived_threads(tmp_path):
    ends: dict[int, Exit] = {}

    def work(number: int) -> None:
        workdir = tmp_path / str(number)
        workdir.mkdir()
        ends[number] = guarded("segfault" if number % 5 == 0 else "echo", f"{number:02}", workdir)

    before = len(list(Path("/proc/self/fd").iterdir()))
    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, ended in ends.items():
        assert ended.kind == ("crashed" if number % 5 == 0 else "ok"), ended
        assert ended.result == (None if number % 5 == 0 else f"{number:02}"[::-1])
    assert len(ends) == 20
    assert len(list(Path("/proc/self/fd").iterdir())) == before


PARENT = """
import sys
sys.path[:0] = sys.argv[4:]
from pathlib import Path
from qpipe.execute.children.guard import run_guarded
from qpipe.records.target import Limits
if __name__ == "__main__":
    run_guarded("guard_entries:" + sys.argv[1], sys.argv[2], workdir=Path(sys.argv[3]), limits=Limits())
"""


def parent_of(entry: str, tmp_path: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PARENT, entry, str(tmp_path / "pids"), str(tmp_path), str(HERE), str(ROOT)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("entry", ["hang", "hang_with_the_lock"])
def test_nothing_outlives_a_killed_parent(tmp_path, entry):
    with parent_of(entry, tmp_path) as parent:
        pids = wait_for(tmp_path / "pids")
        assert all(map(is_alive, pids))
        parent.kill()
    assert gone_soon(*pids)


def test_ctrl_c_stops_the_child(tmp_path):
    import signal

    with parent_of("hang", tmp_path) as parent:
        pids = wait_for(tmp_path / "pids")
        parent.send_signal(signal.SIGINT)
    assert parent.returncode in {1, -signal.SIGINT}
    assert gone_soon(*pids)


def test_a_child_whose_parent_is_already_dead_ends_at_once(tmp_path):
    """The pipe is closed before the child listens to it."""
    (tmp_path / "request.json").write_text(json.dumps({"entry": "guard_entries:echo", "request": "", "path": sys.path}))
    progress_read, progress = os.pipe()
    alive, parents_end = os.pipe()
    os.close(parents_end)
    program = ROOT / "qpipe/execute/children/child.py"
    child = subprocess.run(
        [sys.executable, "-P", str(program), str(tmp_path), str(progress), str(alive)],
        pass_fds=(progress, alive),
        start_new_session=True,
        check=False,
    )
    for descriptor in (progress_read, progress, alive):
        os.close(descriptor)
    assert child.returncode == -9
    assert not (tmp_path / "result.json").exists()


def test_cpu_time_is_the_childs(tmp_path):
    assert 0.3 <= guarded("spin", "0.3", tmp_path).cpu_seconds < 1.0


def test_members_of_a_group():
    assert os.getpid() in members(os.getpgrp())
    assert members(2**22 + 1) == ()


def test_a_child_costs_little(tmp_path):
    """CPU seconds of an empty job beyond those of a bare interpreter."""

    def bare() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    pairs = [(guarded("echo", "", tmp_path).cpu_seconds, bare()) for _ in range(5)]
    assert sorted(mine - theirs for mine, theirs in pairs)[2] < 0.25
