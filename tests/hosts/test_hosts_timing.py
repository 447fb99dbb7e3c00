"""A profile of an engine on a device has the device's own times in it."""

from __future__ import annotations

import time

import numpy as np

from qpipe.measure.timing import time_sessions
from qpipe.plugins.backend import Tensors
from qpipe.records.cell import Timing
from qpipe.records.engine import Kind
from qpipe.records.tensors import Signature


class FarAway:
    """Answers after 2 ms on the wire; the device itself needs 7 µs."""

    kind: Kind = "measured"
    signature = Signature(inputs=(), outputs=())
    device_ns = (7_000, 5_000)

    def run(self, inputs: Tensors) -> Tensors:
        time.sleep(0.002)
        return {"y": inputs["x"]}

    def close(self) -> None: ...


def test_time_on_the_wire_is_not_in_the_samples() -> None:
    timing = Timing(processes=1, rounds=4, blocks=1, min_seconds=0.0, warmup=1)
    feeds = {1: ({"x": np.zeros((1, 1), np.float32)},)}
    samples = time_sessions({"e": FarAway()}, feeds, timing, load_ms={"e": 1.0}, expected={})
    assert set(samples.wall_ns.tolist()) == {7_000}
    assert set(samples.cpu_ns.tolist()) == {5_000}
