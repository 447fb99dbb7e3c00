"""What needs a GPU. Not run where this was written: no NVIDIA driver."""

import json

import numpy as np
import pytest
from qpipe_tensorrt.clocks import Clocks
from qpipe_tensorrt.driver import NoGpu, find_gpus
from qpipe_tensorrt.gpuprofile import profile_on_gpu
from qpipe_tensorrt.opening import open_on_gpu
from qpipe_tensorrt.options import read_options
from qpipe_tensorrt.products import RTX
from qpipe_tensorrt.simulated import SimulatedSession

pytestmark = pytest.mark.gpu


@pytest.fixture
def here(target):
    gpus = find_gpus()
    if isinstance(gpus, NoGpu) or gpus[0].capability not in RTX.capabilities:
        pytest.skip("not measured: no GPU that TensorRT for RTX serves")
    return target(gpus[0].capability, simulate=True)


@pytest.fixture
def session(build, nets, here):
    engine = build(nets.resnet20(), capability=here.options["compute_capability"], simulate=True)
    opened = open_on_gpu(engine, read_options(here))
    yield opened, SimulatedSession(engine.path / "simulated.onnx", engine.signature)
    opened.close()


def images(count):
    return {"input": np.random.default_rng(count).normal(size=(count, 3, 32, 32)).astype(np.float32)}


@pytest.mark.parametrize("count", [1, 4, 8])
def test_outputs_are_near_those_of_the_graph_and_graphs_repeat_them(session, count):
    engine, simulated = session
    runs = [engine.run(images(count))["logits"] for _ in range(4)]
    expected = simulated.run(images(count))["logits"]
    assert all(np.array_equal(runs[0], run) for run in runs[1:])
    cosine = (runs[0] * expected).sum() / np.linalg.norm(runs[0]) / np.linalg.norm(expected)
    assert cosine > 0.99


def test_device_times_layers_and_clocks(session, rtx):
    engine, _ = session
    found = profile_on_gpu(rtx, engine, images, (1, 8), rounds=10)
    assert [times.batch for times in found.times] == [1, 8]
    assert all(0 < ms < times.cold_ms for times in found.times for ms in times.warm_ms)
    assert json.loads(found.layers_json)["Layers"]
    assert isinstance(found.clocks[0], Clocks)
