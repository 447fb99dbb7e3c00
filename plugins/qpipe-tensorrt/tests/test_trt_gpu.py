"""What needs a GPU. Not run where this was written: no NVIDIA driver."""

import json

import numpy as np
import pytest
from qpipe_tensorrt.backend import TensorRT
from qpipe_tensorrt.driver import NoGpu, find_gpus
from qpipe_tensorrt.opening import open_on_gpu
from qpipe_tensorrt.options import read_options
from qpipe_tensorrt.products import RTX
from qpipe_tensorrt.simulated import SimulatedSession

from qpipe.measure.device import course, device_conditions
from qpipe.measure.feeds import digest_outputs
from qpipe.measure.memory import peak_memory
from qpipe.measure.profile import summarize
from qpipe.measure.timing import time_sessions
from qpipe.records.cell import Timing

pytestmark = pytest.mark.gpu


@pytest.fixture
def here(target):
    gpus = find_gpus()
    if isinstance(gpus, NoGpu) or gpus[0].capability not in RTX.capabilities:
        pytest.skip("not measured: no GPU that TensorRT for RTX serves")
    return target(gpus[0].capability, simulate=True)


@pytest.fixture
def engines(build, nets, here):
    """ResNet-20 in float (TF32 where the GPU has it) and in int8, through the same builder."""
    capability = here.options["compute_capability"]
    return {kind: build(nets.resnet20(kind), capability=capability, simulate=True) for kind in ("float", "int8")}


def images(count, seed=0):
    return {"input": np.random.default_rng(seed).normal(size=(count, 3, 32, 32)).astype(np.float32)}


@pytest.mark.parametrize("count", [1, 4, 8])
def test_outputs_are_near_those_of_the_graph_and_graphs_repeat_them(engines, here, count):
    engine = open_on_gpu(engines["int8"], read_options(here))
    runs = [engine.run(images(count))["logits"] for _ in range(4)]
    graph = SimulatedSession(engines["int8"].path / "simulated.onnx", engine.signature)
    expected = graph.run(images(count))["logits"]
    assert all(np.array_equal(runs[0], run) for run in runs[1:])
    cosine = (runs[0] * expected).sum() / np.linalg.norm(runs[0]) / np.linalg.norm(expected)
    assert cosine > 0.99
    engine.close()


def test_a_profile_with_device_times_batches_and_clocks(engines, here):
    """The way of `qpipe run`: both engines interleaved, in one process."""
    sessions = {kind: TensorRT().open(engine, here) for kind, engine in engines.items()}
    feeds = {size: tuple(images(size, seed) for seed in range(4)) for size in (1, 8)}
    before = device_conditions(sessions.values())
    samples = time_sessions(
        sessions,
        feeds,
        Timing(rounds=40, min_seconds=0.2),
        load_ms=dict.fromkeys(sessions, 1.0),
        expected={kind: digest_outputs(session, feeds) for kind, session in sessions.items()},
    )
    seen = course((before, device_conditions(sessions.values())))
    profile = summarize(samples, baseline="float", threads=1, conditions=seen)["int8"]
    assert profile.outputs_match
    for batch in profile.batches:
        assert 0 < dict(batch.latency_ms)["p50"].value < 100
    assert int(dict(profile.conditions)["device_sm_mhz"].split(" ")[0]) > 0
    assert all(session.remarks for session in sessions.values())
    for session in sessions.values():
        session.close()


def test_memory_of_the_device(engines, here):
    found = peak_memory(lambda: TensorRT().open(engines["int8"], here), {8: (images(8),)})
    assert 0 < found.peak_rss_bytes < 8 << 30


def test_the_inspector_tells_of_each_layer(engines):
    assert json.loads((engines["int8"].path / "layers.json").read_text())["Layers"]
