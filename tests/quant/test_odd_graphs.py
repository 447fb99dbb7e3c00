"""Graphs that random ones have found: rewrites that must let them be, and forms that exporters seldom write."""

import numpy as np
import onnx
import pytest
from networks import network, run, sqnr_db
from onnx import TensorProto, helper, numpy_helper

from qpipe.errors import QuantizationError
from qpipe.quant.calibration.calibrate import batches_of, calibrate
from qpipe.quant.calibration.observed import observed_tensors
from qpipe.quant.check import relative_difference, run_float
from qpipe.quant.corrections.equalize import equalize
from qpipe.quant.fold import fold
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.rendering.cast import cast_half
from qpipe.quant.schemes import ORT_X86_VNNI, TENSORRT
from qpipe.quant.static import quantize_static

DRAWN = np.random.default_rng(3)


def draw(*shape, dtype=np.float32):
    return DRAWN.standard_normal(shape).astype(dtype)


def opened(path, head, body, arrays, opset=17):
    onnx.save(network(head, body, arrays, opset), path)
    return open_graph(path)


DOUBLES = {
    "gemm": ("double[N,6]", "y = Gemm<alpha=0.5>(x, w)", {"w": (6, 4)}),
    "shortcut": (
        "double[N,3,6,6]",
        "c = Slice(x, from, to, axes, steps) y = Pad(c, pads)",
        {"from": [0, 0], "to": [9, 9], "axes": [2, 3], "steps": [2, 2], "pads": [0, 1, 0, 0, 0, 1, 0, 0]},
    ),
    "pair": ("double[N,6]", "c = Gemm(x, w) r = Relu(c) y = Gemm(r, v)", {"w": (6, 4), "v": (4, 3)}),
}


@pytest.mark.parametrize("name", DOUBLES)
def test_weights_in_double_stay_double(name, tmp_path):
    kind, body, shapes = DOUBLES[name]
    arrays = {
        key: np.array(shape) if isinstance(shape, list) else np.abs(draw(*np.atleast_1d(shape), dtype=np.float64))
        for key, shape in shapes.items()
    }
    rank = kind.count(",")
    size = ",".join("NMKLJ"[: rank + 1])
    model = opened(tmp_path / "m.onnx", f"({kind} x) => (double[{size}] y)", body, arrays)
    before = model.clone()
    fold(model)
    equalize(model)
    sides = [int(part) for part in kind[:-1].split(",")[1:]]
    feed = {"x": draw(4, *sides, dtype=np.float64)}
    [old], [new] = run_float(before, feed), run_float(model, feed)
    assert new.dtype == np.float64
    assert relative_difference(old, new) < 1e-9


@pytest.mark.parametrize("bias", [(4, 3), (4, 1), (1, 3), (1,), ()])
def test_a_bias_of_any_shape_survives_folding_and_correction(bias, tmp_path):
    arrays = {"w": draw(6, 3), "b": draw(*bias), "c": draw(3), "v": draw(3, 8)}
    body = "g = Gemm(x, w, b) a = Add(g, c) r = Relu(a) y = Gemm(r, v)"
    onnx.save(network("(float[4,6] x) => (float[4,8] y)", body, arrays), tmp_path / "m.onnx")
    rows = {"x": draw(4, 6)}
    found = quantize_static(tmp_path / "m.onnx", lambda: batches_of(rows, 4), TENSORRT)
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    [old], [new] = run(tmp_path / "m.onnx", rows), run(tmp_path / "qdq.onnx", rows, plain=True)
    assert sqnr_db(old, new) > 25


def test_nothing_to_observe_is_refused_with_the_reasons(tmp_path):
    onnx.save(network("(float[N,8] x) => (float[M] y)", "y = MatMul(x, w)", {"w": draw(8)}), tmp_path / "m.onnx")
    with pytest.raises(QuantizationError, match="its weights are a vector"):
        quantize_static(tmp_path / "m.onnx", lambda: batches_of({"x": draw(4, 8)}, 4), ORT_X86_VNNI)


@pytest.mark.parametrize("opset", [11, 17])
def test_functions_are_inlined_in_every_opset(opset, tmp_path):
    body = [helper.make_node("MatMul", ["a", "w"], ["m"]), helper.make_node("Relu", ["m"], ["z"])]
    own = helper.make_function("own", "Layer", ["a", "w"], ["z"], body, [helper.make_opsetid("", opset)])
    graph = helper.make_graph(
        [helper.make_node("Layer", ["x", "w"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(draw(8, 4), "w")],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, functions=[own], opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    model = open_graph(tmp_path / "m.onnx")
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu"]
    assert run_float(model, {"x": draw(2, 8)})[0].shape == (2, 4)


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
def test_sparse_constants_are_read(where, linear, tmp_path):
    dense = np.where(DRAWN.random((8, 4)) < 0.5, 0, draw(8, 4))
    places = np.flatnonzero(dense) if linear else np.argwhere(dense)
    values = numpy_helper.from_array(dense[dense != 0], "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places.astype(np.int64), "i"), [8, 4])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if where != "initializer":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    if where == "branch":
        branch = helper.make_graph(nodes, "b", [], [out])
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])]
    graph = helper.make_graph(nodes, "g", inputs, [out], [numpy_helper.from_array(np.array(True), "c")])
    if where == "initializer":
        graph.sparse_initializer.append(sparse)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    data = draw(3, 8)
    [found] = run_float(open_graph(tmp_path / "m.onnx"), {"x": data})
    np.testing.assert_allclose(found, data @ dense, rtol=1e-4, atol=1e-5)


def statistics_of(path, head, body, arrays, rows):
    model = opened(path, head, body, arrays)
    return calibrate(model, [rows], observed_tensors(model.graph, ORT_X86_VNNI))


def test_rows_beside_a_batch_norm_have_channel_vectors(tmp_path):
    arrays = {"w": draw(8, 4), "s": np.abs(draw(8))}
    body = "y = Gemm(x, w) z = BatchNormalization(x, s, s, s, s)"
    head = "(float[N,8] x) => (float[N,4] y, float[N,8] z)"
    found = statistics_of(tmp_path / "m.onnx", head, body, arrays, {"x": draw(6, 8)})
    assert found.tensors["x"].vectors.shape == (6, 8)


@pytest.mark.parametrize("bounds", [{"low": np.float32(2), "high": np.float32(-2)}, {"low": np.float32(0)}])
def test_a_roof_below_the_floor_is_not_taken_for_a_sign(bounds, tmp_path):
    head, roof = (
        "(float[N,8] x) => (float[N,4] y)",
        "" if "high" in bounds else "m = ReduceMax<keepdims=0>(x) high = Neg(m)",
    )
    body = f"{roof} c = Clip(x, low, high) y = Gemm(c, w)"
    found = statistics_of(tmp_path / "m.onnx", head, body, {"w": draw(8, 4), **bounds}, {"x": draw(6, 8)})
    assert found.tensors["c"].range[0] < 0


def test_huge_activations_are_counted_without_overflow(tmp_path):
    arrays = {"w": draw(8, 4), "k": np.float32(1e30)}
    head = "(float[N,8] x) => (float[N,4] y)"
    found = statistics_of(tmp_path / "m.onnx", head, "c = Mul(x, k) y = Gemm(c, w)", arrays, {"x": draw(6, 8)})
    item = found.tensors["c"]
    assert np.isfinite(item.square)
    assert item.bins.sum() == 48


def test_an_operator_defined_by_others_stays_float32(tmp_path):
    head = "(float[N,3,4,4] x) => (float[N,5,4,4] y)"
    body = "m = MeanVarianceNormalization<axes=[2,3]>(x) y = Conv(m, w)"
    half = cast_half(opened(tmp_path / "m.onnx", head, body, {"w": draw(5, 3, 1, 1)}, 13), "float16")
    save_graph(half, tmp_path / "half.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "half.onnx"), full_check=True)
