# ruff: noqa: ARG002, ARG005 - the vendor's signatures
"""A session through the core's own timing and memory, on a driver and a runtime that stand in for a GPU.

NVIDIA's runtime crashes where there is no GPU, so a small one takes its place here: it adds 1 to float32 tensors at the
addresses it is given. Nothing here is a measurement.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from types import SimpleNamespace

import numpy as np
import pytest
from qpipe_tensorrt import contexts, telemetry
from qpipe_tensorrt.border import Border, Wire, choose_profile, take
from qpipe_tensorrt.clocks import Clocks, Gauge
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
    """Adds 1; counts how often it was asked to, and remembers what it was told."""

    def __init__(self, how: object = None) -> None:
        self.how = how
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.runs = 0
        self.told: list[str] = []
        self.memory = (0, 0)

    def set_device_memory(self, memory, size):
        self.memory = (memory, size)

    def set_input_shape(self, name, shape):
        self.told.append(f"shape {shape}")
        self.shape = shape
        return True

    def get_tensor_shape(self, name):
        return self.shape

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return memory != 0

    def set_optimization_profile_async(self, profile_index, stream_handle):
        self.told.append(f"profile {profile_index}")
        return stream_handle == 9

    def execute_async_v3(self, stream_handle):
        count = int(np.prod(self.shape))
        x, y = ((ctypes.c_float * count).from_address(self.addresses[name]) for name in ("x", "y"))
        y[:] = [value + 1 for value in x]
        self.runs += 1
        return stream_handle == 9


class Engine:
    """One input and one output; profiles for 1 to 8 rows, and for 4 alone."""

    num_optimization_profiles = 2
    num_io_tensors = 2
    device_memory_size_v2 = 512
    weight_streaming_budget_v2 = 0
    dtype, location = "FLOAT", "DEVICE"

    def __init__(self, made: Callable[[object], Context | None] = Context) -> None:
        self.contexts: list[Context] = []
        self.made = made

    def create_execution_context(self, how=None):
        self.contexts.append(self.made(how))
        return self.contexts[-1]

    def create_runtime_config(self):
        return SimpleNamespace()

    def create_engine_inspector(self):
        return SimpleNamespace(get_engine_information=lambda format: json.dumps({"Layers": [format]}))

    def get_weight_streaming_automatic_budget(self):
        assert not self.contexts, "the budget is set before any context is made"
        return 77

    def get_tensor_name(self, index):
        return "xy"[index]

    def get_tensor_mode(self, name):
        return SimpleNamespace(name={"x": "INPUT", "y": "OUTPUT"}[name])

    def get_tensor_location(self, name):
        return SimpleNamespace(name=self.location)

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.dtype)

    def get_tensor_shape(self, name):
        return (-1, 3)

    def get_tensor_profile_shape(self, name, index):
        return (((1, 3), (4, 3), (8, 3)), ((4, 3),) * 3)[index]


def runtime(engine):
    """The vendor's module, as far as a session uses it; bytes other than `plan` are no engine."""
    made = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if plan == b"plan" else None)
    return SimpleNamespace(
        ILogger=Logger,
        Runtime=lambda logger: made,
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="managed"),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
        CudaGraphStrategy=SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole"),
    )


@pytest.fixture
def opened(library):
    """Opens sessions on the first GPU, with the engine as their second half."""

    def make(*, plan=b"plan", use_graphs=False, jit=False, engine=None, signature=SIGNATURE, **others):
        cuda, engine = Cuda(0, library()), engine or Engine()
        session = GpuSession(
            runtime(engine),
            plan,
            signature,
            cuda,
            jit=jit,
            use_graphs=use_graphs,
            telemetry=Telemetry(cuda, library()),
            **others,
        )
        return session, engine

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


def test_a_device_that_broke_costs_no_other_step_of_closing(opened, library, monkeypatch):
    """A kernel's bad address fails every call that follows; the first complaint is told."""
    session, _ = opened()
    session.run(FEEDS[4][0])
    before, done = Cuda(0, library()).free_bytes(), []
    monkeypatch.setattr(session._cuda, "wait", lambda: done.append("wait") or session._cuda._call("cuCtxSetCurrent", 1))
    monkeypatch.setattr(session._telemetry, "close", lambda: done.append("telemetry"))
    monkeypatch.setattr(session._cuda, "close", lambda: done.append("cuda"))
    with pytest.raises(EngineError, match="cuCtxSetCurrent failed"):
        session.close()
    assert done == ["wait", "telemetry", "cuda"]
    assert Cuda(0, library()).free_bytes() == before + 2 * 4 * 3 * 4
    assert not hasattr(session, "_engine")
    session.close()


def test_a_graph_is_recorded_at_the_second_run_of_a_shape_and_replayed(opened):
    """From a context of its own, which nobody touches afterwards; all contexts share one block of memory."""
    session, engine = opened(use_graphs=True)
    for _ in range(5):
        session.run(FEEDS[4][0])
    general, own = engine.contexts
    assert (general.runs, own.runs) == (1, 2), "one run, then one before the recording and the recording itself"
    assert own.told == ["profile 1", "shape (4, 3)"]
    session.run(FEEDS[1][0])
    session.run(FEEDS[1][0])
    session.run(FEEDS[4][0])
    assert own.told == ["profile 1", "shape (4, 3)"]
    assert [context.runs for context in engine.contexts] == [2, 2, 2]
    assert {context.memory for context in engine.contexts} == {general.memory}
    assert general.memory[1] == 512
    assert {context.how for context in engine.contexts} == {"managed"}
    assert dict(session.device_conditions())["cuda_graphs"] == "on"
    session.close()


def test_a_graph_is_recorded_again_where_memory_moved(opened):
    session, engine = opened(use_graphs=True)
    for size in (1, 1, 4, 4, 1):
        session.run(FEEDS[size][0])
    assert engine.contexts[1].runs == 4, "the buffers of four rows are others than those of one"


def test_many_shapes_get_no_graph_each(opened, monkeypatch):
    monkeypatch.setattr(contexts, "MOST_GRAPHS", 2)
    session, engine = opened(use_graphs=True)
    for size in (1, 2, 3, 5) * 3:
        outputs = session.run({"x": np.full((size, 3), 2, np.float32)})
        assert size < 3 or np.array_equal(outputs["y"], np.full((size, 3), 3, np.float32))  # a stand-in replays nothing
    assert len(engine.contexts) == 3


def test_an_engine_that_cannot_be_recorded_runs_without_graphs_and_says_so(opened):
    calls = []

    class Loop(Context):
        def execute_async_v3(self, stream_handle):
            calls.append(super().execute_async_v3(stream_handle))
            return len(calls) != 3  # the third one is the recording

    session, engine = opened(use_graphs=True, engine=Engine(Loop))
    for turn in (0, 1, 0, 1):
        outputs = session.run(FEEDS[1][turn])
        assert np.array_equal(outputs["y"], np.full((1, 3), turn + 1, np.float32))
    assert [context.runs for context in engine.contexts] == [3, 3]
    assert dict(session.device_conditions())["cuda_graphs"] == "off: the engine cannot be recorded"


@pytest.mark.parametrize(("use_graphs", "strategy"), [(True, "whole"), (False, "disabled")])
def test_rtx_compiles_for_each_shape_at_once_and_records_by_itself(opened, use_graphs, strategy):
    """Else its kernels, and with them times and outputs, would change at some later run."""
    session, engine = opened(use_graphs=use_graphs, jit=True)
    for _ in range(3):
        session.run(FEEDS[1][0])
    [context] = engine.contexts
    assert vars(context.how) == {
        "dynamic_shapes_kernel_specialization_strategy": "eager",
        "cuda_graph_strategy": strategy,
    }
    assert context.runs == 3
    assert dict(session.device_conditions())["cuda_graphs"] == ("on" if use_graphs else "off")


def test_streamed_weights_get_a_budget_before_any_context(opened):
    assert opened(stream_weights=True)[1].weight_streaming_budget_v2 == 77
    assert opened()[1].weight_streaming_budget_v2 == 0


def test_the_worst_clocks_since_the_last_question(opened, monkeypatch):
    session, _ = opened()
    readings = [Clocks(sm_mhz=mhz, memory_mhz=9, temperature_c=40, slowed_by=()) for mhz in (1900, 1200, 1900, 1900)]
    monkeypatch.setattr(telemetry, "_LOOK_EVERY_NS", 0)
    monkeypatch.setattr(Gauge, "read", lambda self: readings.pop(0))
    session.run(FEEDS[1][0])
    session.run(FEEDS[1][0])
    assert [dict(session.device_conditions())["sm_mhz"] for _ in range(2)] == ["1200", "1900"]


def test_a_session_runs_in_another_thread(opened):
    """The context of CUDA is a thread's own."""
    session, _ = opened()
    with ThreadPoolExecutor(1) as pool:
        assert session.run(FEEDS[1][0]).keys() == pool.submit(session.run, FEEDS[1][0]).result().keys()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": np.zeros((9, 3), np.float32)}, r"no optimization profile serves x \(9, 3\)"),
        ({"x": np.zeros((0, 3), np.float32)}, r"no optimization profile serves x \(0, 3\)"),
        ({"x": np.zeros(3, np.float32)}, r"no optimization profile serves x \(3,\)"),
        ({"x": np.zeros((1, 3))}, "input `x` is float64, the engine takes float32"),
        ({}, "input `x` is missing"),
    ],
)
def test_inputs_that_the_engine_does_not_take_are_named(opened, inputs, message):
    with pytest.raises(EngineError, match=message):
        opened()[0].run(inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "BF16"}, "tensor `x` is BF16: inputs and outputs of an engine are"),
        ({"location": "HOST"}, "tensor `x` is a shape, which an engine keeps on the host"),
        ({"made": lambda how: None}, "no execution context: no reason given"),
    ],
)
def test_engines_that_cannot_be_run_are_refused_at_opening(opened, changes, message):
    engine = Engine()
    for name, value in changes.items():
        setattr(engine, name, value)
    with pytest.raises(EngineError, match=message):
        opened(engine=engine)


def test_an_engine_of_other_names_is_refused(opened):
    other = Signature(inputs=(SPECS[0],), outputs=(TensorSpec(name="z", dtype="float32", shape=("N", 3)),))
    with pytest.raises(EngineError, match="takes `x` and gives `y`; its manifest says `x` and `z`"):
        opened(signature=other)


def test_an_input_that_no_kernel_reads_is_not_in_the_engine(opened):
    unused = TensorSpec(name="mask", dtype="int64", shape=("N", 3))
    session, _ = opened(signature=Signature(inputs=(SPECS[0], unused), outputs=(SPECS[1],)))
    outputs = session.run({**FEEDS[1][0], "mask": np.zeros((1, 3), np.int64)})
    assert outputs["y"].shape == (1, 3)


def test_a_tighter_profile_is_taken_and_fixed_inputs_fit_every_one():
    batch = Wire(name="x", dtype="float32", ranges=(((1, 3), (8, 3)), ((4, 3), (4, 3))))
    fixed = Wire(name="s", dtype="float32", ranges=(((), ()), ((), ())))
    border = Border(inputs=(batch, fixed), outputs=())
    assert [choose_profile(border, (("x", (rows, 3)), ("s", ()))) for rows in (1, 4, 8)] == [0, 1, 0]
    assert take(border, {"x": np.zeros((4, 3), np.float32), "s": np.float32(1)})["s"].shape == ()
    assert choose_profile(Border(inputs=(), outputs=()), ()) == 0


def test_the_inspectors_account_or_the_refusal(opened):
    assert json.loads(layers_of(runtime(Engine()), b"plan")) == {"Layers": ["json"]}
    with pytest.raises(EngineError, match="cannot load the engine"):
        layers_of(runtime(Engine()), b"other")
    with pytest.raises(EngineError, match="cannot load the engine"):
        opened(plan=b"other")
