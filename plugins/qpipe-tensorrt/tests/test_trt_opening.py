"""Engines of other machines, versions and hands; and the CPU in place of the GPU where a target asks for it."""

from dataclasses import replace

import numpy as np
import pytest
from qpipe_tensorrt.backend import TensorRT
from qpipe_tensorrt.driver import Gpu, NoGpu, find_gpus
from qpipe_tensorrt.portability import admit, matching_gpu
from qpipe_tensorrt.products import RTX

from qpipe.engines import read_engine
from qpipe.errors import EngineError
from qpipe.records.engine import Requirement

without_gpu = pytest.mark.skipif(not isinstance(find_gpus(), NoGpu), reason="this machine has a GPU")


def changed(engine, **needs):
    given = {need.what: need.value for need in engine.requires} | needs
    return replace(engine, requires=tuple(Requirement(what=what, value=value) for what, value in given.items()))


@without_gpu
def test_without_a_driver_nothing_is_measured(small_engine, target):
    with pytest.raises(EngineError, match="not measured: no NVIDIA driver") as error:
        TensorRT().open(small_engine, target())
    assert error.value.code == 5


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"tensorrt-version": "1.6.0.1"}, "was built by tensorrt_rtx 1.6.0.1, here is 1.7.1.116"),
        ({"tensorrt-product": "tensorrt"}, "the engine is tensorrt's, the target says tensorrt-rtx"),
    ],
)
def test_another_product_or_version_is_refused_with_what_to_do(small_engine, needs, message):
    with pytest.raises(EngineError) as error:
        admit(changed(small_engine, **needs), RTX)
    assert message in error.value.message
    assert "build" in error.value.hint
    assert error.value.code == 5


def gpu(capability, name="NVIDIA RTX"):
    return Gpu(index=0, name=name, capability=capability, driver="580")


@pytest.mark.parametrize(
    ("needs", "here", "serves"),
    [
        ({"compute-capability": "8.6"}, "8.6", True),
        ({"compute-capability": "8.6"}, "8.9", False),
        ({"compute-capability": "8.6 8.9"}, "8.9", True),
        ({"compute-capability": "8.0+"}, "9.0", True),
        ({"compute-capability": "8.0+"}, "7.5", False),
        ({"compute-capability": "9.0", "gpu": "NVIDIA H200"}, "9.0", False),
    ],
)
def test_an_engine_runs_on_its_gpu_alone(needs, here, serves):
    if serves:
        assert matching_gpu((gpu(here),), needs).capability == here
        return
    with pytest.raises(EngineError, match=f"here: NVIDIA RTX .{here}."):
        matching_gpu((gpu(here),), needs)


def test_a_broken_engine_never_reaches_the_vendors_loader(small_engine, target):
    engine = small_engine
    engine.main_file.write_bytes(b"not an engine at all")
    with pytest.raises(EngineError, match=r"engine\.trt is not a TensorRT engine") as error:
        TensorRT().open(engine, target())
    assert (error.value.code, error.value.hint) == (5, "build it again")
    with pytest.raises(EngineError, match=r"engine\.trt"):
        read_engine(engine.path)
    engine.main_file.unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        TensorRT().open(engine, target())


@without_gpu
def test_simulation_runs_the_graph_on_the_cpu_and_says_so(build, nets, target):
    engine = build(nets.small(), simulate=True)
    session = TensorRT().open(engine, target(simulate=True))
    outputs = session.run({"input": np.ones((2, 3, 16, 16), np.float32)})
    assert session.kind == "simulated"
    assert outputs["logits"].shape == (2, 10)
    assert np.isfinite(outputs["logits"]).all()
    session.close()


@without_gpu
def test_an_engine_without_its_graph_cannot_be_simulated(small_engine, target):
    with pytest.raises(EngineError, match="keeps no graph to simulate"):
        TensorRT().open(small_engine, target(simulate=True))
