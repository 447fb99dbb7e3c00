from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from qpipe_onnxruntime.backend import OnnxRuntimeBackend
from qpipe_onnxruntime.options import Options
from qpipe_onnxruntime.session import check_provider, session_options

from qpipe.errors import EngineError
from qpipe.measure.reference import open_reference
from qpipe.measure.rows import run_rows
from qpipe.records.tensors import Signature, TensorSpec


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(10, 3, 8, 8)).astype(np.float32)


def test_the_float_engine_answers_like_the_reference(kit, local, rows):
    graph = kit.network()
    session = OnnxRuntimeBackend().open(kit.engine(kit.prepared(graph), local), local)
    assert (session.kind, session.signature) == ("measured", kit.prepared(graph).signature)
    expected = open_reference(graph).run({"x": rows})["y"]
    np.testing.assert_allclose(session.run({"x": rows})["y"], expected, rtol=1e-5, atol=1e-5)


def test_the_integer_engine_is_close_and_not_the_same(kit, local, rows):
    graph = kit.network()
    session = OnnxRuntimeBackend().open(kit.engine(kit.prepared(graph, kit.static(graph)), local), local)
    found, expected = session.run({"x": rows})["y"], open_reference(graph).run({"x": rows})["y"]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.2


def test_a_closed_session_does_not_run(kit, local, rows):
    session = OnnxRuntimeBackend().open(kit.engine(kit.prepared(kit.network()), local), local)
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run({"x": rows})


@pytest.mark.parametrize(
    ("feed", "words"),
    [
        ({"x": np.zeros((1, 3, 9, 9), np.float32)}, "x"),
        ({"x": np.zeros((1, 3, 8, 8), np.float64)}, "double"),
        ({"z": np.zeros((1, 3, 8, 8), np.float32)}, "z|x"),
    ],
)
def test_wrong_inputs_are_refused_in_one_line(kit, local, feed, words):
    session = OnnxRuntimeBackend().open(kit.engine(kit.prepared(kit.network()), local), local)
    with pytest.raises(EngineError, match=words) as caught:
        session.run(feed)
    assert "\n" not in caught.value.message


def test_float16_inside_is_cast_at_the_border(kit, local):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["N", 2])],
        [numpy_helper.from_array(np.ones((4, 2), np.float16), "w")],
    )
    path = kit.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "half.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 2)),),
    )
    engine = kit.engine(kit.prepared(path), local, signature)
    found = OnnxRuntimeBackend().open(engine, local).run({"x": np.ones((3, 4), np.float32)})["y"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, 4)
    placement = engine.placement
    assert placement.integer + placement.float == 1
    # Either this CPU has a float16 kernel and it counts as asked for, or its absence is said.
    assert placement.integer or "float16" in placement.left_in_float[0].reason


def test_renamed_outputs_are_refused(kit, local):
    signature = kit.prepared(kit.network()).signature
    other = replace(signature, outputs=(replace(signature.outputs[0], name="logits"),))
    engine = kit.engine(kit.prepared(kit.network()), local, other)
    with pytest.raises(EngineError, match="the file has y where the model has logits"):
        OnnxRuntimeBackend().open(engine, local)


def test_a_fixed_batch_is_respected(kit, local, rows):
    free, fixed = kit.network(), kit.network("fixed.onnx", batch=4)
    prepared = kit.prepared(fixed)
    signature = open_reference(fixed).signature
    session = OnnxRuntimeBackend().open(kit.engine(prepared, local, signature), local)
    found = run_rows(session, [{"x": rows[:7]}, {"x": rows[7:]}])
    assert found.rows == 10
    np.testing.assert_allclose(found.tensors["y"], open_reference(free).run({"x": rows})["y"], rtol=1e-5, atol=1e-5)


def test_another_provider_is_an_error(kit):
    others = [name for name in ort.get_available_providers() if name != "CPUExecutionProvider"]
    if not others:
        pytest.skip("this onnxruntime has the CPU provider alone")
    session = ort.InferenceSession(kit.network(), providers=[others[0], "CPUExecutionProvider"])
    with pytest.raises(EngineError, match=others[0]):
        check_provider(session)


def test_sessions_are_single_minded(local):
    settings = session_options(replace(local, threads=2), Options(graph_optimization="extended", memory_arena=False))
    assert (settings.intra_op_num_threads, settings.inter_op_num_threads) == (2, 1)
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert settings.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert settings.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    assert not settings.enable_cpu_mem_arena
