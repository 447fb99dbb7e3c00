# ruff: noqa: ARG002, ARG005 - the vendor's signatures
"""A session through the core's own timing and memory, on a driver and a runtime that stand in for a GPU.

NVIDIA's runtime crashes where there is no GPU, so a small one takes its place here: it adds 1 to float32 tensors at the
addresses it is given. Nothing here is a measurement.
"""

from __future__ import annotations

import ctypes
import json
from enum import IntEnum
from types import SimpleNamespace

import numpy as np
import pytest
from qpipe_tensorrt.cuda import Cuda
from qpipe_tensorrt.inspection import layers_of
from qpipe_tensorrt.session import GpuSession
from qpipe_tensorrt.telemetry import Telemetry

from qpipe.errors import EngineError
from qpipe.measure.device import course, device_conditions
from qpipe.measure.feeds import digest_outputs
from qpipe.measure.memory import peak_memory
from qpipe.measure.profile import summarize
from qpipe.measure.timing import time_sessions
from qpipe.plugins.backend import DeviceTimed, OnDevice, Remarking
from qpipe.records.cell import Timing
from qpipe.records.tensors import Signature, TensorSpec

FEEDS = {size: tuple({"x": np.full((size, 3), turn, np.float32)} for turn in range(2)) for size in (1, 4)}
SPECS = [TensorSpec(name=name, dtype="float32", shape=("N", 3)) for name in ("x", "y")]
SIGNATURE = Signature(inputs=(SPECS[0],), outputs=(SPECS[1],))
SEVERITY = IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


class Logger:
    Severity = SEVERITY


class Context:
    """Adds 1; counts how often it was asked to."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.runs = 0

    def set_input_shape(self, name, shape):
        self.shape = shape
        return True

    def get_tensor_shape(self, name):
        return self.shape

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return True

    def set_optimization_profile_async(self, profile_index, stream_handle):
        return True

    def execute_async_v3(self, stream_handle):
        count = int(np.prod(self.shape))
        x, y = ((ctypes.c_float * count).from_address(self.addresses[name]) for name in ("x", "y"))
        y[:] = [value + 1 for value in x]
        self.runs += 1
        return stream_handle == 9


def runtime(context):
    """The vendor's module, as far as a session uses it; bytes other than `plan` are no engine."""
    inspector = SimpleNamespace(get_engine_information=lambda format: json.dumps({"Layers": [format]}))
    engine = SimpleNamespace(
        create_execution_context=lambda: context,
        create_engine_inspector=lambda: inspector,
        get_tensor_dtype=lambda name: SimpleNamespace(name="FLOAT"),
        get_tensor_profile_shape=lambda name, index: ((1, 3), (4, 3), (8, 3)),
        num_optimization_profiles=1,
    )
    made = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if plan == b"plan" else None)
    formats = SimpleNamespace(JSON="json")
    return SimpleNamespace(ILogger=Logger, Runtime=lambda logger: made, LayerInformationFormat=formats)


@pytest.fixture
def opened(library):
    """Opens sessions on the first GPU, with the runtime's context as their second half."""

    def make(*, plan=b"plan", use_graphs=False):
        cuda, context = Cuda(0, library()), Context()
        session = GpuSession(
            runtime(context),
            plan,
            SIGNATURE,
            cuda,
            use_graphs=use_graphs,
            host_code=False,
            telemetry=Telemetry(cuda, library()),
        )
        return session, context

    return make


def test_a_profile_of_a_gpu_comes_through_the_core(opened):
    """Device time by events, the batch sweep, the float engine interleaved, and conditions: one code path."""
    sessions = {name: opened()[0] for name in ("float", "int8")}
    before = device_conditions(sessions.values())
    digests = {name: digest_outputs(session, FEEDS) for name, session in sessions.items()}
    timing = Timing(rounds=4, blocks=2, min_seconds=0.0, warmup=1)
    samples = time_sessions(sessions, FEEDS, timing, load_ms=dict.fromkeys(sessions, 1.0), expected=digests)
    assert set(samples.wall_ns) == {1_500_000}, "the driver's 1.5 ms between two events, not the time of this host"
    seen = course((before, device_conditions(sessions.values())))
    profile = summarize(samples, baseline="float", threads=1, conditions=seen)["int8"]
    assert [batch.batch for batch in profile.batches] == [1, 4]
    assert dict(profile.batches[0].latency_ms)["p50"].value == 1.5
    assert profile.outputs_match
    assert dict(profile.conditions) == {
        "device_sm_mhz": "1980",
        "device_memory_mhz": "3201",
        "device_temperature_c": "41",
        "device_slowed_by": "software power cap, hardware thermal slowdown",
        "device_cuda_graphs": "off",
    }


def test_memory_is_the_devices(opened):
    found = peak_memory(lambda: opened()[0], FEEDS, runs=1)
    assert (found.peak_rss_bytes, found.before_bytes) == (2 * 4 * 3 * 4, 0), "one input and one output of four rows"


def test_a_session_tells_its_first_run_beside_the_last(opened):
    session, _ = opened()
    assert isinstance(session, DeviceTimed)
    assert isinstance(session, OnDevice)
    assert isinstance(session, Remarking)
    assert session.remarks == ()
    assert np.array_equal(session.run(FEEDS[4][1])["y"], np.full((4, 3), 2, np.float32))
    assert "the last one 1.500 ms on the device" in session.remarks[0]
    session.close()
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run(FEEDS[1][0])


def test_a_graph_is_recorded_once_per_shape_and_replayed(opened):
    """The second run of a shape records; from then on the runtime is not asked again."""
    session, context = opened(use_graphs=True)
    for _ in range(5):
        session.run(FEEDS[4][0])
    assert context.runs == 2
    session.run(FEEDS[1][0])
    session.run(FEEDS[1][0])
    assert context.runs == 4
    assert dict(session.device_conditions())["cuda_graphs"] == "on"


def test_a_shape_outside_every_profile_is_named(opened):
    with pytest.raises(EngineError, match=r"no optimization profile serves x \(9, 3\)"):
        opened()[0].run({"x": np.zeros((9, 3), np.float32)})


def test_the_inspectors_account_or_the_refusal(opened):
    assert json.loads(layers_of(runtime(Context()), b"plan")) == {"Layers": ["json"]}
    with pytest.raises(EngineError, match="cannot load the engine"):
        layers_of(runtime(Context()), b"other")
    with pytest.raises(EngineError, match="cannot load the engine"):
        opened(plan=b"other")
