"""What a device says of itself: memory and conditions of a profile are the device's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qpipe.measure.device import course, cross_checks, device_conditions, load_conditions, save_conditions
from qpipe.measure.memory import PeakMemory, peak_memory
from qpipe.plugins.backend import OnDevice, Tensors
from qpipe.records.engine import Kind
from qpipe.records.tensors import Signature


class Here:
    kind: Kind = "measured"
    signature = Signature(inputs=(), outputs=())

    def run(self, inputs: Tensors) -> Tensors:
        return inputs

    def close(self) -> None: ...


class FarAway(Here):
    device_memory_bytes = (7, 11)

    def device_conditions(self) -> tuple[tuple[str, str], ...]:
        return (("governor", "schedutil"), ("thermal_millidegrees", "42000 41000"))


def test_conditions_are_those_of_the_device_and_come_back_from_a_file(tmp_path: Path) -> None:
    assert isinstance(FarAway(), OnDevice)
    seen = (device_conditions([Here(), FarAway()]),)
    save_conditions(tmp_path / "0.npz", seen)
    assert load_conditions(tmp_path / "0.npz") == seen
    assert device_conditions([Here()]) == ()


def test_only_what_changed_is_told_in_order() -> None:
    hot = (("device_governor", "schedutil"), ("device_thermal_millidegrees", "48000 45000"))
    assert course((device_conditions([FarAway()]), hot)) == (
        ("device_governor", "schedutil"),
        ("device_thermal_millidegrees", "42000 41000 → 48000 45000"),
    )
    assert course(()) == ()
    assert course((("heat", one),) for one in ("40", "47", "40")) == (("heat", "40 → 47 → 40"),)


class Checked(Here):
    def cross_check(self) -> str:
        return "0.5 ms"


def test_what_another_program_says_is_named_after_the_engine() -> None:
    assert cross_checks({"m/int8/t": Checked(), "m/none/t": Here()}) == (("cross-check of m/int8/t", "0.5 ms"),)


def test_memory_of_an_engine_on_a_device_is_measured_there() -> None:
    feeds = {1: ({"x": np.zeros((1, 1), np.float32)},)}
    assert peak_memory(FarAway, feeds, runs=1) == PeakMemory(peak_rss_bytes=11, before_bytes=7)
