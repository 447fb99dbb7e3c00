"""Children that are forked from a seed: they end as spawned ones do, whatever they do."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qpipe.execute.children.guard import Exit, run_guarded
from qpipe.execute.children.nursery import Nursery
from qpipe.execute.children.seed import MODULES
from qpipe.records.target import Limits

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def nursery():
    """A seed that has imported little; its path has the entries of these tests."""
    sys.path.insert(0, str(HERE))
    try:
        nursery = Nursery(modules=("numpy.random",))
        with nursery.opened():
            yield nursery
    finally:
        sys.path.remove(str(HERE))


@pytest.fixture(autouse=True)
def _entries(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


def guarded(entry: str, request: str, workdir: Path, nursery: Nursery, *, memory_mib: int = 2048, **more) -> Exit:
    limits = Limits(timeout_s=more.pop("timeout_s", 30.0), memory_bytes=memory_mib << 20)
    return run_guarded(f"guard_entries:{entry}", request, workdir=workdir, limits=limits, nursery=nursery, **more)


def seed_of(nursery: Nursery, workdir: Path) -> int:
    """The process that children are forked from."""
    return int(guarded("parent", "", workdir, nursery).result or "")


def gone_soon(*pids: int) -> bool:
    end = time.monotonic() + 5
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < end:
        time.sleep(0.01)
    return not left


def test_a_result_comes_back_from_a_fork(tmp_path, nursery):
    ended = guarded("echo", "naïve ✓\n", tmp_path, nursery)
    assert (ended.kind, ended.result, ended.code, ended.signal, ended.error) == ("ok", "\n✓ evïan", 0, None, None)
    assert ended.log_tail == "to stdout\nto stderr"
    assert 0 < ended.cpu_seconds < 1
    assert seed_of(nursery, tmp_path) == seed_of(nursery, tmp_path) != os.getpid()


def test_the_surroundings_are_those_of_a_spawned_child(tmp_path, nursery):
    found = json.loads(guarded("facts", "", tmp_path, nursery).result or "")
    assert (found["cwd"], found["temporary"]) == (str(Path.cwd()), str(tmp_path))
    assert (found["core"], found["session"], found["faulthandler"]) == ([0, 0], True, "1")
    assert "numpy" in found["modules"]
    assert len(found["open"]) == 6  # 0, 1, 2, progress, alive, and the listing itself


def test_children_differ_in_what_nobody_seeded(tmp_path, nursery):
    assert guarded("luck", "", tmp_path, nursery).result != guarded("luck", "", tmp_path, nursery).result


@pytest.mark.parametrize(
    ("job", "kind", "end"),
    [
        (("segfault", ""), "crashed", (None, 11, "crashed with SIGSEGV")),
        (("abort", ""), "crashed", (None, 6, "crashed with SIGABRT")),
        (("leave", "7"), "crashed", (7, None, "exited with status 7 and without a result")),
        (("stumble", ""), "failed", (0, None, "TypeError: not like this")),
        (("ask_too_much", ""), "memory", (0, None, "MemoryError: more than this machine can give")),
    ],
)
def test_what_goes_wrong_costs_that_child_alone(tmp_path, nursery, job, kind, end):
    before = seed_of(nursery, tmp_path)
    ended = guarded(*job, tmp_path, nursery)
    assert ended.error is not None
    assert (ended.kind, ended.code, ended.signal, ended.error.message) == (kind, *end)
    if ended.signal:
        assert f"in {job[0]}" in ended.log_tail
    assert seed_of(nursery, tmp_path) == before


def test_limits_of_time_and_memory_reach_the_whole_group(tmp_path, nursery):
    late = guarded("hang", str(tmp_path / "pids"), tmp_path, nursery, timeout_s=1.0)
    assert (late.kind, late.signal) == ("timeout", 9)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert gone_soon(*pids)
    assert guarded("eat", "", tmp_path, nursery, memory_mib=300).kind == "memory"


def test_many_at_once(tmp_path, nursery):
    def work(number: int) -> Exit:
        workdir = tmp_path / str(number)
        workdir.mkdir()
        return guarded("segfault" if number % 5 == 0 else "echo", f"{number:02}", workdir, nursery)

    before = len(list(Path("/proc/self/fd").iterdir()))
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(work, range(16)))
    assert [one.result for one in ends] == [None if n % 5 == 0 else f"{n:02}"[::-1] for n in range(16)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_seed_that_was_killed_takes_its_children_and_no_more(tmp_path):
    nursery, stop = Nursery(modules=()), threading.Event()
    with nursery.opened(), ThreadPoolExecutor(1) as pool:
        seed = seed_of(nursery, tmp_path)
        running = pool.submit(guarded, "hang", str(tmp_path / "pids"), tmp_path, nursery, stop=stop)
        while not (tmp_path / "pids").exists():
            time.sleep(0.01)
        os.kill(seed, signal.SIGKILL)
        ended = running.result(timeout=5)
        assert (ended.kind, ended.signal) == ("crashed", 9)
        assert guarded("echo", "ab", tmp_path, nursery).result == "ba"
        assert seed_of(nursery, tmp_path) == os.getpid()  # spawned
    assert gone_soon(seed)


def test_a_whole_result_is_taken_although_the_seed_cannot_say_how_the_child_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("qpipe.execute.children.nursery.PATIENCE_S", 0.7)
    nursery = Nursery(modules=())
    with nursery.opened():
        ended = guarded("stop_parent", "whole", tmp_path, nursery)
        assert (ended.kind, ended.result, ended.error) == ("ok", "whole", None)
        assert seed_of(nursery, tmp_path) == os.getpid()  # spawned


def test_a_closed_nursery_leaves_nothing_and_spawns(tmp_path):
    nursery = Nursery(modules=())
    with nursery.opened():
        seed = seed_of(nursery, tmp_path)
    assert gone_soon(seed)
    assert seed_of(nursery, tmp_path) == os.getpid()


def test_a_seed_that_cannot_import_is_no_obstacle(tmp_path):
    nursery = Nursery(modules=("there.is.no.such.module",))
    with nursery.opened():
        assert guarded("echo", "ab", tmp_path, nursery).result == "ba"


def test_a_block_within_is_of_the_same_seed_and_leaves_it(tmp_path):
    nursery = Nursery(modules=())
    with nursery.opened():
        seed = seed_of(nursery, tmp_path)
        with nursery.opened():
            assert seed_of(nursery, tmp_path) == seed
        assert seed_of(nursery, tmp_path) == seed
        nursery.end()
        assert gone_soon(seed)
        assert seed_of(nursery, tmp_path) == os.getpid()  # spawned
        with nursery.opened():
            assert seed_of(nursery, tmp_path) not in (seed, os.getpid())
        assert seed_of(nursery, tmp_path) == os.getpid()


def test_after_a_seed_that_was_killed_the_next_block_within_has_another(tmp_path):
    nursery = Nursery(modules=())
    with nursery.opened():
        os.kill(seed := seed_of(nursery, tmp_path), signal.SIGKILL)
        assert seed_of(nursery, tmp_path) == os.getpid()
        with nursery.opened():
            assert seed_of(nursery, tmp_path) not in (seed, os.getpid())


PARENT = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from qpipe.execute.children.guard import run_guarded
from qpipe.execute.children.nursery import Nursery
from qpipe.records.target import Limits
nursery = Nursery(modules=())
with nursery.opened():
    pids = sys.argv[1] + "/pids"
    run_guarded("guard_entries:hang", pids, workdir=Path(sys.argv[1]), limits=Limits(), nursery=nursery)
"""


def test_nothing_outlives_a_killed_parent(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path), str(HERE), str(HERE.parents[1])]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        end = time.monotonic() + 20
        while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        parent.kill()
    assert gone_soon(*pids)


def test_the_real_seed_starts_no_thread_that_a_fork_would_lose():
    """BLAS has threads and knows how to fork; onnxruntime has one of its own as soon as it is imported."""
    code = f"""
import importlib, os, sys, threading
import numpy
blas = len(os.listdir("/proc/self/task"))
for name in {MODULES!r}:
    importlib.import_module(name)
assert len(os.listdir("/proc/self/task")) == blas and threading.active_count() == 1
assert not {{"onnxruntime", "mlflow", "scipy"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
