"""A profile of an engine on a device has the device's own times in it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from qpipe.errors import EngineError
from qpipe.measure.profile import summarize
from qpipe.measure.samples import Samples, merge_samples
from qpipe.measure.timing import time_sessions
from qpipe.plugins.backend import Tensors
from qpipe.records.cell import Timing
from qpipe.records.engine import Kind
from qpipe.records.tensors import Signature


class FarAway:
    """Answers after 2 ms on the wire; the device itself needs 7 µs."""

    kind: Kind = "measured"
    signature = Signature(inputs=(), outputs=())
    device_ns: tuple[float, float] = (7_000, 5_000)

    def __init__(self, *took: tuple[float, float], wire_s: float = 0.0) -> None:
        self.took = took
        self.runs = 0
        self.wire_s = wire_s

    def run(self, inputs: Tensors) -> Tensors:
        time.sleep(self.wire_s)
        if self.took:
            self.device_ns = self.took[self.runs % len(self.took)]
            self.runs += 1
        return {"y": inputs["x"]}

    def close(self) -> None: ...


def timed(session: FarAway) -> Samples:
    timing = Timing(processes=1, rounds=20, blocks=1, min_seconds=0.0, warmup=1)
    feeds = {1: ({"x": np.zeros((1, 1), np.float32)},)}
    both = {"float": FarAway(), "e": session}
    return time_sessions(both, feeds, timing, load_ms=dict.fromkeys(both, 1.0), expected={})


def test_time_on_the_wire_is_not_in_the_samples() -> None:
    samples = timed(FarAway(wire_s=0.002))
    assert set(samples.wall_ns.tolist()) == {7_000}
    assert set(samples.cpu_ns.tolist()) == {5_000}


@pytest.mark.parametrize("took", [(0, 0), (-7_000, 0), (7_000, -1), (float("nan"), 0)])
def test_times_that_no_run_takes_are_refused(took) -> None:
    with pytest.raises(EngineError, match="the device's clock gives"):
        timed(FarAway(took))


def test_a_clock_that_counts_in_long_steps_times_nothing() -> None:
    """Runs of 12 and of 18 ms would be of 10 and of 20: a ratio of 2, the same in each process."""
    with pytest.raises(EngineError, match=r"counts in steps of 10 ms, and a run takes"):
        timed(FarAway((10_000_000, 0), (20_000_000, 0), (30_000_000, 0)))
    assert len(timed(FarAway((7_000, 0), (7_100, 0))).wall_ns) == 40


def test_a_device_without_cpu_time_has_no_ratio_of_it() -> None:
    samples = timed(FarAway((7_000, 0), (7_100, 0)))
    found = summarize(merge_samples([samples, samples]), baseline="float", threads=1)["e"]
    assert found.batches[0].cpu_ratio is None
    assert found.batches[0].ratio is not None
