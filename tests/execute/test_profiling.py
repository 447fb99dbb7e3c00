"""A profile of several engines, with the children's part scripted: what drifts, what breaks, whose numbers stand."""

from __future__ import annotations

import fcntl
import functools
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qpipe.execute.children.exits import Exit, ExitError
from qpipe.execute.children.watch import Silence
from qpipe.execute.jobs import Contestant, MemoryJob, TimingJob
from qpipe.execute.work import profiling
from qpipe.execute.work.profiling import TRIES, Order, Place, Timed
from qpipe.gates.statistics.latency import percentile_bounds
from qpipe.measure.device import save_conditions
from qpipe.measure.memory import PeakMemory
from qpipe.measure.profile import order_statistics
from qpipe.measure.samples import Samples, merge_samples, save_samples
from qpipe.records.cell import Timing
from qpipe.records.codec import decode, encode
from qpipe.records.data import DataSpec
from qpipe.records.evidence import NotMeasured, Profile
from qpipe.records.target import Target
from qpipe.records.tensors import Signature

BASE = "m/none/t"
CRASH = Exit(
    kind="crashed",
    code=None,
    signal=11,
    seconds=1.0,
    cpu_seconds=1.0,
    peak_rss_bytes=0,
    result=None,
    error=ExitError(type="Crash", message="crashed with SIGSEGV", hint="", code=5),
    log_tail="",
)


def samples(labels, *, own_ms=5.0, drift=0.0, processes=5, rounds=8, seed=0):
    """The float engine takes 10 ms; the others `own_ms`, and more from process to process where they drift."""
    random = np.random.default_rng(seed)

    def process(number):
        base = 1e7 * (1 + 0.001 * random.normal(size=rounds))
        other = own_ms * 1e6 * (1 + drift * number) * (1 + 0.001 * random.normal(size=rounds))
        wall = np.stack([base] + [other] * (len(labels) - 1), axis=1).ravel().astype(np.int64)
        return Samples(
            engines=np.array(labels),
            process=np.zeros(len(wall), np.int64),
            block=np.repeat(np.arange(rounds) * 2 // rounds, len(labels)),
            batch=np.ones(len(wall), np.int64),
            engine=np.tile(np.arange(len(labels)), rounds),
            wall_ns=wall,
            cpu_ns=wall,
            load_ms=np.ones((1, len(labels))),
            outputs_match=np.ones((1, len(labels)), np.bool_),
        )

    return merge_samples(process(number) for number in range(processes))


class Listener(Silence):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def profile(monkeypatch, tmp_path):
    """Profiles of engines by name, from what each try of the timed processes is scripted to give."""

    def run(names, timed, **memory):
        tries = []

        def scripted(order, place):
            labels = [one.label for one in order.everyone]
            tries.append(labels)
            found = timed(labels, len(tries))
            return found if isinstance(found, Exit) else Timed(samples=found, seen=((("device_governor", "x"),),))

        monkeypatch.setattr(profiling, "_timed", scripted)
        monkeypatch.setattr(profiling, "_memory", lambda order, _: {one.label: (7,) for one in order.everyone} | memory)
        contestant = {name: Contestant(label=f"m/{name}/t", engine="e", evaluation="v") for name in ("none", *names)}
        order = Order(
            store="",
            target=Target(name="t", backend="b"),
            baseline=contestant["none"],
            others=tuple(contestant[name] for name in names),
            data=None,
            signature=None,
            timing=Timing(),
            kind="measured",
        )
        watch = Listener()
        found = profiling._profile(order, Place(folder=tmp_path, watch=watch, stop=threading.Event()))
        return SimpleNamespace(found=found, tries=tries, lines=watch.lines)

    return run


@pytest.mark.parametrize("bad", ["int8", "fp16"])
def test_an_engine_that_breaks_the_process_costs_its_own_profile_alone(profile, bad):
    ran = profile(["int8", "fp16"], lambda labels, _: CRASH if f"m/{bad}/t" in labels else samples(labels, own_ms=5.0))
    broken = ran.found.pop(f"m/{bad}/t")
    assert isinstance(broken.profile, NotMeasured)
    assert broken.again
    assert "SIGSEGV" in broken.profile.reason
    assert {label: (type(one.profile), one.again) for label, one in ran.found.items()} == {
        BASE: (Profile, False),
        next(label for label in ran.found if label != BASE): (Profile, False),
    }
    assert len(ran.tries) == 3


def test_a_ratio_that_drifts_is_measured_again_and_the_last_try_stands(profile):
    ran = profile(["int8"], lambda labels, number: samples(labels, drift=0.2 if number < 3 else 0.0))
    found = ran.found["m/int8/t"].profile
    assert (len(ran.tries), found.voided, found.drifted, len(ran.lines)) == (3, 2, False, 2)
    assert all("measuring again" in line for line in ran.lines)
    never = profile(["int8"], lambda labels, _: samples(labels, drift=0.2))
    found = never.found["m/int8/t"].profile
    assert (len(never.tries), found.voided, found.drifted, len(never.lines)) == (TRIES, TRIES - 1, True, TRIES - 1)


def test_each_engine_has_its_own_numbers_and_the_samples_of_two(profile):
    ran = profile(["int8", "fp16"], lambda labels, _: samples(labels), **{"m/fp16/t": (1, 2, 3)})
    found = ran.found["m/fp16/t"]
    assert found.samples.engines.tolist() == [BASE, "m/fp16/t"]
    assert ran.found[BASE].samples.engines.tolist() == [BASE]
    assert (found.profile.peak_rss_bytes, found.profile.voided) == ((1, 2, 3), 0)
    assert found.profile.batches[0].ratio.median == pytest.approx(0.5, rel=0.01)
    assert dict(found.profile.conditions)["device_governor"] == "x"
    assert not found.again


@dataclass
class Children:
    """What stands for the children of a profile: they answer at once, and what they were asked is kept."""

    lock: Path
    crash_at: int = -1
    forgetful: str = ""
    """The engine whose processes for memory all crash."""
    timed: list = field(default_factory=list)
    remembered: list = field(default_factory=list)

    def run_job(self, job, _folder, _watch, _stop):
        asked = decode(TimingJob, job.request)
        self.timed.append(asked)
        assert self.locked()
        if asked.number == self.crash_at:
            return CRASH
        labels = [one.label for one in asked.contestants]
        save_samples(Path(asked.samples), samples(labels, processes=1, seed=asked.number))
        save_conditions(Path(asked.samples), ((("device_heat", str(40 + asked.number)),),))
        return replace(CRASH, kind="ok", result=asked.samples, error=None)

    def run_jobs(self, jobs, *, done, **_):
        assert self.locked()
        for number, job in enumerate(jobs):
            asked = decode(MemoryJob, job.request)
            self.remembered.append(asked)
            peak = encode(PeakMemory(peak_rss_bytes=100 + number, before_bytes=7))
            crashes = number == 1 or asked.contestant.engine == self.forgetful
            done(job, CRASH if crashes else replace(CRASH, kind="ok", result=peak, error=None))

    def locked(self):
        with self.lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


@pytest.fixture
def children(tmp_path, monkeypatch):
    found = Children(lock=tmp_path / "lock")
    monkeypatch.setattr(profiling, "run_job", found.run_job)
    monkeypatch.setattr(profiling, "run_jobs", found.run_jobs)
    monkeypatch.setattr(profiling, "measuring", functools.partial(profiling.measuring, path=found.lock))
    return found


def order_of(*names, **changes):
    none, *others = (Contestant(label=f"m/{name}/t", engine=name, evaluation="v") for name in ("none", *names))
    data = DataSpec(inputs=(), label=None, preprocess=(), roles=())
    order = Order(
        store="store",
        target=Target(name="t", backend="b", batch_sizes=(4, 8, 1), threads=3),
        baseline=none,
        others=tuple(others),
        data=data,
        signature=Signature(inputs=(), outputs=()),
        timing=Timing(processes=4, memory_processes=2),
        kind="emulated",
        role="search",
    )
    return replace(order, **changes)


def place_of(tmp_path):
    return Place(folder=tmp_path / "work", watch=Silence(), stop=threading.Event())


def test_every_process_is_asked_for_the_same_engines_and_rows_alone_on_this_host(children, tmp_path):
    found = profiling.profile_target(order_of("int8"), place_of(tmp_path))
    assert not children.locked()
    assert [one.number for one in children.timed] == [0, 1, 2, 3]
    for asked in children.timed:
        assert [one.engine for one in asked.contestants] == ["none", "int8"]
        assert (asked.role, asked.target.threads, asked.timing.processes) == ("search", 3, 4)
    profile = found["m/int8/t"].profile
    assert (profile.processes, profile.kind, profile.threads, profile.voided) == (4, "emulated", 3, 0)
    assert dict(profile.conditions)["device_heat"] == "40 → 41 → 42 → 43"
    medians = [np.median(found["m/int8/t"].samples.times_ms("m/int8/t", 1, process)) for process in range(4)]
    assert len(set(medians)) == 4
    matrix, p50 = found["m/int8/t"].samples.matrix_ms("m/int8/t", 1), dict(profile.batches[0].latency_ms)["p50"]
    assert (p50.value, p50.low, p50.high) == pytest.approx(percentile_bounds(matrix, 0.5))  # processes, not runs
    assert p50.high != order_statistics(matrix, 0.5)[2]


def test_memory_is_of_each_engine_at_the_largest_batch_and_processes_that_failed_give_none(children, tmp_path):
    found = profiling.profile_target(order_of("int8"), place_of(tmp_path))
    assert [(one.contestant.engine, one.batch, one.role) for one in children.remembered] == [
        *[("none", 8, "search")] * 2,
        *[("int8", 8, "search")] * 2,
    ]
    assert {label: one.profile.peak_rss_bytes for label, one in found.items()} == {BASE: (100,), "m/int8/t": (102, 103)}
    assert not any(one.again for one in found.values())


@pytest.mark.parametrize(("processes", "again"), [(2, True), (0, False)])
def test_an_engine_whose_memory_nobody_saw_is_not_finished(children, tmp_path, processes, again):
    children.forgetful = "int8"
    order = order_of("int8", timing=Timing(processes=4, memory_processes=processes))
    found = profiling.profile_target(order, place_of(tmp_path))
    assert {label: (type(one.profile), one.again) for label, one in found.items()} == {
        BASE: (Profile, False),
        "m/int8/t": (Profile, again),
    }


def test_a_process_that_crashes_after_others_leaves_no_profile_of_fewer(children, tmp_path):
    children.crash_at = 2
    found = profiling.profile_target(order_of("int8"), place_of(tmp_path))
    assert {type(one.profile) for one in found.values()} == {NotMeasured}
    assert all(one.again for one in found.values())
    assert len(children.timed) == 3


def test_after_a_stop_no_engine_is_timed_by_itself(children, tmp_path):
    children.crash_at = 0
    place = place_of(tmp_path)
    place.stop.set()
    found = profiling.profile_target(order_of("int8", "fp16"), place)
    assert len(children.timed) == 1
    assert all(one.again for one in found.values())
