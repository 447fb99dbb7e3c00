from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from qpipe.errors import EngineError, Interrupted
from qpipe.measure.cpu import Cpu, read_cpu
from qpipe.measure.host import LOCK, beyond_target, conditions, governor, measuring
from qpipe.measure.memory import peak_memory
from qpipe.records.tensors import Signature

X86 = """processor : 0
model name : AMD EPYC 7763
flags : fpu avx avx2 fma avx512_vnni

processor : 1
model name : AMD EPYC 7763
flags : fpu avx avx2 fma
"""
ARM = """processor : 0
Features : fp asimd asimddp i8mm
CPU implementer : 0x41
CPU part : 0xd40

processor : 1
Features : fp asimd asimddp
CPU implementer : 0x41
CPU part : 0xd05
"""


@pytest.mark.parametrize(
    ("text", "arch", "model", "isa"),
    [
        (X86, "x86_64", "AMD EPYC 7763", ("avx", "fma", "avx2")),
        (ARM, "aarch64", "implementer 0x41 part 0xd40 + implementer 0x41 part 0xd05", ("asimd", "asimddp")),
        ("", "riscv64", "unknown", ()),
    ],
)
def test_a_processor_has_what_all_its_cores_share(tmp_path, text, arch, model, isa):
    (tmp_path / "cpuinfo").write_text(text)
    found = read_cpu(tmp_path / "cpuinfo", arch)
    assert (found.model, found.arch, found.isa) == (model, arch, isa)


def test_this_machine_is_read():
    assert read_cpu().count == len(os.sched_getaffinity(0))
    assert read_cpu().arch == os.uname().machine


def test_alternatives_in_a_demand():
    cpu = Cpu(model="m", arch="x86_64", flags=frozenset({"avx_vnni"}), count=1)
    assert cpu.has("avx512_vnni|avx_vnni")
    assert not cpu.has("avx512_vnni")


def test_conditions_name_what_the_target_does_not():
    cpu = Cpu(model="m", arch="x86_64", flags=frozenset({"avx2", "avx512_vnni"}), count=1)
    assert beyond_target(cpu, ("avx2",)) == ("avx512_vnni",)
    assert beyond_target(cpu, ("avx512_vnni|avx_vnni",)) == ()
    assert beyond_target(replace(cpu, flags=frozenset({"avx2"})), ("avx2",)) == ()
    found = dict(conditions(("avx2",), cpu))
    assert "avx512_vnni" in found["isa_beyond_target"]
    assert {"cpu", "isa", "load_average", "governor", "kernel", "virtual_machine"} <= set(found)
    assert "isa_beyond_target" not in dict(conditions((), cpu))


def test_the_governor_of_a_machine_that_has_one(tmp_path):
    for number in (0, 1):
        folder = tmp_path / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text("powersave\n" if number else "performance\n")
    assert governor(tmp_path) == "performance + powersave"
    (tmp_path / "cpu2" / "cpufreq" / "scaling_governor").mkdir(parents=True)  # of a core that is switched off: no read
    assert governor(tmp_path) == "performance + powersave"
    assert governor(tmp_path / "cpu9") == "not reported"


def test_one_measurement_at_a_time(tmp_path):
    lock, said, order = tmp_path / "lock", [], []

    def second() -> None:
        with measuring(said.append, lock) as waited:
            order.append(("second", waited))

    with measuring(said.append, lock) as waited:
        assert waited < 0.1
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.4)
        order.append(("first", waited))
    other.join(timeout=5)
    assert [name for name, _ in order] == ["first", "second"]
    assert order[1][1] > 0.3
    assert said == [f"waiting: process {os.getpid()} measures on this host (lock {lock})"]


def test_a_killed_holder_frees_the_lock(tmp_path):
    lock = tmp_path / "lock"
    code = (
        "import os, pathlib, signal\n"
        "from qpipe.measure.host import measuring\n"
        f"with measuring(print, pathlib.Path({str(lock)!r})):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {"PYTHONPATH": ":".join(path or "." for path in sys.path)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == -9
    said: list[str] = []
    with measuring(said.append, lock):
        assert said == []


def test_who_waits_to_measure_can_be_interrupted_and_the_lock_is_for_all_users(tmp_path):
    lock, stop, said = tmp_path / "lock", threading.Event(), []
    with measuring(said.append, lock):
        assert lock.stat().st_mode & 0o777 == 0o666
        lock.write_text("4194304999\n")  # a longer number than the next holder's
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(Interrupted), measuring(said.append, lock, stop=stop):
            pass
        assert len(said) == 1
    with measuring(said.append, lock):
        assert lock.read_text() == f"{os.getpid()}\n"


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(EngineError, match="measuring lock"), measuring(print, tmp_path / "lock"):
        pass
    assert not (tmp_path / "victim").exists()


def test_the_lock_is_one_for_the_host():
    assert LOCK.is_absolute()
    assert "TMPDIR" not in str(LOCK)


class Hungry:
    """A session that takes memory when it is opened and more when it runs, and gives it back."""

    kind = "measured"
    signature = Signature(inputs=(), outputs=())

    def __init__(self) -> None:
        self.weights = np.ones(8 * 2**20, dtype=np.uint8)
        self.closed = False

    def run(self, inputs):
        assert inputs
        return {"y": np.ones(24 * 2**20, dtype=np.uint8)[:1]}

    def close(self) -> None:
        self.closed = True


HUNGRY = """
import json
import numpy as np
from qpipe.measure.memory import peak_memory

class Hungry:
    kind = signature = closed = None
    def __init__(self):
        self.weights = np.ones(8 * 2**20, dtype=np.uint8)
        self.mib = 24
    def run(self, inputs):
        large, self.mib = np.ones(self.mib * 2**20, dtype=np.uint8), 0  # given back after the first run
        return {"y": large[:1]}
    def close(self):
        Hungry.closed = True

found = peak_memory(Hungry, {1: ({"x": np.zeros(1)},)})
print(json.dumps([found.engine_bytes, found.peak_rss_bytes, found.before_bytes, Hungry.closed]))
"""


def test_the_peak_counts_loading_and_running():
    """In a fresh process, as in every profile: a used one has memory to give that nobody sees it take."""
    done = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True, check=True)
    engine, peak, before, closed = json.loads(done.stdout)
    assert 30 * 2**20 < engine < 48 * 2**20, (engine, peak, before)
    assert peak > before > 0
    assert peak % os.sysconf("SC_PAGE_SIZE") == before % os.sysconf("SC_PAGE_SIZE") == 0  # bytes, not thousands
    assert closed


def test_an_earlier_peak_does_not_count():
    del [np.ones(128 * 2**20, dtype=np.uint8)][0]
    found = peak_memory(Hungry, {1: ({"x": np.zeros(1)},)})
    assert found.engine_bytes < 48 * 2**20
