"""A profile of several engines, with the children's part scripted: what drifts, what breaks, whose numbers stand."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from qpipe.execute.children.exits import Exit, ExitError
from qpipe.execute.children.watch import Silence
from qpipe.execute.jobs import Contestant
from qpipe.execute.work import profiling
from qpipe.execute.work.profiling import TRIES, Order, Place, Timed
from qpipe.measure.samples import Samples, merge_samples
from qpipe.records.cell import Timing
from qpipe.records.evidence import NotMeasured, Profile
from qpipe.records.target import Target

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


def samples(labels, *, own_ms=5.0, drift=0.0, processes=5, rounds=8):
    """The float engine takes 10 ms; the others `own_ms`, and more from process to process where they drift."""
    random = np.random.default_rng(0)

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
