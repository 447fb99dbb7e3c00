"""Weights stored in half precision: half the file, float32 arithmetic, and nothing left to cast once it is loaded."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from many_graphs import CASES as EVERY
from many_graphs import build, rows_for
from networks import run, write_network
from onnx import TensorProto

from qpipe.errors import QuantizationError
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.storage.stored import SMALLEST, store_half

CASES = [case for case in EVERY if not case.refused]
HALVES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


def write(path, body, weights, head="(float[N,64] x) => (float[N,M] y)"):
    return write_network(path, head, body, weights)


def weight(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def stored(source, dtype="float16", **keywords):
    target = source.with_name("stored.onnx")
    save_graph(store_half(open_graph(source), dtype, **keywords), target)
    proto = onnx.load(target)
    onnx.checker.check_model(proto, full_check=True)
    return proto, {tensor.name: tensor.data_type for tensor in proto.graph.initializer}


def loaded(path, level=ort.GraphOptimizationLevel.ORT_ENABLE_BASIC):
    """The graph as onnxruntime runs it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(path.with_name("loaded.onnx"))
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(path.with_name("loaded.onnx"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_graph_computes_what_its_rounded_weights_do(case, tmp_path, monkeypatch):
    monkeypatch.setattr("qpipe.quant.storage.stored.SMALLEST", 1)
    source = tmp_path / "float.onnx"
    onnx.save(build(case), source)
    rows = rows_for(build(case))
    _, types = stored(source)
    assert TensorProto.FLOAT16 in types.values()
    rounded = open_graph(source)
    for name, value in rounded.graph.initializers.items():
        if types.get(name) == TensorProto.FLOAT16:
            value.const_value = onnx_tensor(value.const_value.numpy().astype(np.float16).astype(np.float32), name)
    save_graph(rounded, tmp_path / "rounded.onnx")
    pairs = zip(run(tmp_path / "rounded.onnx", rows), run(tmp_path / "stored.onnx", rows), strict=True)
    for old, new in pairs:
        assert new.dtype == old.dtype
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6)


def onnx_tensor(array, name):
    import onnx_ir as ir

    return ir.tensor(array, name=name)


@pytest.mark.parametrize("dtype", sorted(HALVES))
def test_the_runtime_folds_every_cast_of_a_weight(tmp_path, dtype):
    body = "a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) y = Add(c, bias)"
    source = write(tmp_path / "float.onnx", body, {"w": weight(64, 64), "v": weight(64, 64), "bias": weight(64)})
    proto, types = stored(source, dtype)
    assert types == {"w": HALVES[dtype], "v": HALVES[dtype], "bias": TensorProto.FLOAT}
    assert [node.op_type for node in proto.graph.node].count("Cast") == 2
    assert (tmp_path / "stored.onnx").stat().st_size < 0.55 * source.stat().st_size
    graph = loaded(tmp_path / "stored.onnx").graph
    assert "Cast" not in {node.op_type for node in graph.node}
    assert {tensor.data_type for tensor in graph.initializer} == {TensorProto.FLOAT}


def test_of_a_table_the_rows_found_are_cast_and_the_table_stays_half(tmp_path):
    head = "(int64[N] x) => (float[N,M] y)"
    source = write(
        tmp_path / "float.onnx", "r = Gather(t, x) y = MatMul(r, w)", {"t": weight(50, 64), "w": weight(64, 8)}, head
    )
    stored(source)
    graph = loaded(tmp_path / "stored.onnx").graph
    assert {tensor.name: tensor.data_type for tensor in graph.initializer}["t"] == TensorProto.FLOAT16
    rows = {"x": np.array([0, 49, 7])}
    [old], [new] = run(source, rows), run(tmp_path / "stored.onnx", rows)
    np.testing.assert_allclose(new, old, atol=0.05)


@pytest.mark.parametrize("keep", ["Gemm", "second"])
def test_what_is_listed_keeps_float32_weights(tmp_path, keep):
    body = "a = MatMul(x, w) y = Gemm(a, v)"
    source = write(tmp_path / "float.onnx", body, {"w": weight(64, 64), "v": weight(64, 64)})
    proto = onnx.load(source)
    proto.graph.node[1].name = "second"
    onnx.save(proto, source)
    _, types = stored(source, keep_float=(keep,))
    assert types == {"w": TensorProto.FLOAT16, "v": TensorProto.FLOAT}


def test_what_the_type_cannot_hold_stays_float32(tmp_path):
    mask = np.where(np.tri(64) > 0, 0, np.finfo(np.float32).min).astype(np.float32)
    source = write(
        tmp_path / "float.onnx",
        "a = MatMul(x, w) y = Add(a, mask)",
        {"w": weight(64, 64), "mask": mask},
        "(float[64,64] x) => (float[64,64] y)",
    )
    assert stored(source)[1] == {"w": TensorProto.FLOAT16, "mask": TensorProto.FLOAT}


def test_weights_that_would_vanish_stay_float32(tmp_path):
    small = {"w": weight(64, 64), "v": weight(64, 64) * np.float32(1e-9), "u": np.zeros((64, 64), np.float32)}
    source = write(tmp_path / "float.onnx", "a = MatMul(x, w) b = MatMul(a, v) y = MatMul(b, u)", small)
    assert stored(source)[1] == {"w": TensorProto.FLOAT16, "v": TensorProto.FLOAT, "u": TensorProto.FLOAT16}


def test_a_graph_without_such_weights_is_refused(tmp_path):
    source = write(tmp_path / "float.onnx", "y = MatMul(x, w)", {"w": weight(64, 1)})
    assert SMALLEST > 64
    with pytest.raises(QuantizationError, match="no weight of this graph can be stored in float16"):
        stored(source)
