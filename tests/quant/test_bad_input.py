"""Bad models and bad rows: each is a clear error, or a behaviour that the plan states."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import write_network

from qpipe.errors import DataError, ModelError, QuantizationError
from qpipe.quant.calibration.calibrate import calibrate
from qpipe.quant.calibration.observed import observed_tensors
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.options import QuantOptions
from qpipe.quant.plan import make_plan
from qpipe.quant.rendering.render import render
from qpipe.quant.schemes import FLOAT, ORT_X86_VNNI
from qpipe.quant.static import quantize_static
from qpipe.records.quantization import WeightSpec


def write(path, body, weights, head="(float[N,8] x) => (float[N,M] y)", opset=17):
    return write_network(path, head, body, weights, opset)


def weights(seed=0):
    return np.random.default_rng(seed).standard_normal((8, 8)).astype(np.float32)


def rows(count=16):
    return {"x": np.random.default_rng(1).standard_normal((count, 8)).astype(np.float32)}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_node(tmp_path, value):
    broken = weights()
    broken[2, 3] = value
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": broken})
    with pytest.raises(QuantizationError, match=r"node '.*' \(MatMul\) has NaN or infinite weights"):
        quantize_static(path, lambda: iter([rows()]), ORT_X86_VNNI)


def test_infinite_activations_leave_their_nodes_in_float(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        "a = MatMul(x, w) b = Div(a, zero) c = MatMul(b, w) y = Relu(a)",
        {"w": weights(), "zero": np.float32(0)},
        head="(float[N,8] x) => (float[N,M] y, float[N,M] c)",
    )
    found = quantize_static(path, lambda: iter([rows()]), ORT_X86_VNNI)
    left = found.plan.left_in_float()
    assert [choice.op for choice in left] == ["MatMul"]
    assert "infinite or NaN range" in left[0].reason
    assert len(found.plan.weights[0].nodes) == 1


def test_rows_with_nan_do_not_poison_other_tensors(tmp_path):
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights()})
    bad = rows()
    bad["x"][0, 0] = np.nan
    with pytest.raises(QuantizationError, match="infinite or NaN range"):
        quantize_static(path, lambda: iter([bad]), ORT_X86_VNNI)


def test_no_rows(tmp_path):
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights()})
    with pytest.raises(DataError, match="no rows"):
        quantize_static(path, lambda: iter([]), ORT_X86_VNNI)


def test_missing_column_is_named(tmp_path):
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights()})
    with pytest.raises(DataError, match="no 'x'") as caught:
        quantize_static(path, lambda: iter([{"image": rows()["x"]}]), ORT_X86_VNNI)
    assert "image" in caught.value.hint


def test_rows_of_the_wrong_width(tmp_path):
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights()})
    with pytest.raises(QuantizationError, match="does not run on the calibration rows"):
        quantize_static(path, lambda: iter([{"x": np.zeros((4, 9), np.float32)}]), ORT_X86_VNNI)


def test_empty_activation_counts_as_not_reached(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        "e = Slice(x, a, a, axis) s = Tanh(e) m = MatMul(s, w) n = MatMul(x, w) y = Concat<axis=0>(m, n)",
        {"w": weights(), "a": np.array([0]), "axis": np.array([0])},
    )
    found = quantize_static(path, lambda: iter([rows()]), ORT_X86_VNNI)
    assert ["was reached by no calibration row" in choice.reason for choice in found.plan.left_in_float()] == [True]
    assert len(found.plan.weights) == 1


def test_a_branch_that_no_row_takes_stays_float(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        "m = ReduceMax<keepdims=0>(x) f = Greater(m, big) g = MatMul(x, w) "
        "y = If(f) <then_branch = t () => (float[N,M] p) { p = MatMul(g, w) }, "
        "else_branch = e () => (float[N,M] q) { q = Neg(g) }>",
        {"w": weights(), "big": np.float32(1e9)},
    )
    found = quantize_static(path, lambda: iter([rows()]), ORT_X86_VNNI)
    assert any("inside a subgraph" in choice.reason for choice in found.plan.left_in_float())


def test_old_opset_that_cannot_be_converted(tmp_path):
    path = write(tmp_path / "m.onnx", "y = NoSuchOperator(x)", {}, opset=9)
    with pytest.raises(ModelError, match="opset 9"):
        open_graph(path)


def test_not_a_model(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        open_graph(tmp_path / "m.onnx")


def test_float_scheme_refuses(tmp_path):
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights()})
    with pytest.raises(QuantizationError, match="no integer operators"):
        quantize_static(path, lambda: iter([rows()]), FLOAT)


def test_channel_axis_that_does_not_exist(tmp_path):
    model = open_graph(write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights()}))
    statistics = calibrate(model, iter([rows()]), observed_tensors(model.graph, ORT_X86_VNNI))
    plan = make_plan(model, statistics, ORT_X86_VNNI)
    spec = plan.weights[0]
    wrong = WeightSpec(tensor=spec.tensor, dtype="int8", bits=8, symmetric=True, axis=2, nodes=spec.nodes)
    broken = replace(plan, weights=(wrong,))
    with pytest.raises(QuantizationError, match=r"has no channel axis 2"):
        render(model, broken)


def test_patterns_keep_nodes_in_float(tmp_path):
    path = write(tmp_path / "m.onnx", "a = MatMul(x, w) r = Relu(a) y = MatMul(r, w)", {"w": weights()})
    model = open_graph(path)
    first = next(node.name for node in model.graph if node.op_type == "MatMul")
    found = quantize_static(path, lambda: iter([rows()]), ORT_X86_VNNI, QuantOptions(keep_float=(first,)))
    assert [choice.reason for choice in found.plan.left_in_float()] == [f"the recipe keeps {first!r} in float"]
    with pytest.raises(QuantizationError, match="keeps 'op:MatMul' in float"):
        quantize_static(path, lambda: iter([rows()]), ORT_X86_VNNI, QuantOptions(keep_float=("op:MatMul",)))


def test_our_own_output_is_refused_as_input(tmp_path):
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights()})
    found = quantize_static(path, lambda: iter([rows()]), ORT_X86_VNNI)
    save_graph(found.qdq, tmp_path / "q.onnx")
    with pytest.raises(QuantizationError, match="quantized already"):
        quantize_static(tmp_path / "q.onnx", lambda: iter([rows()]), ORT_X86_VNNI)


def test_a_range_of_zero_width_gets_scale_1(tmp_path):
    path = write(tmp_path / "m.onnx", "a = Mul(x, zero) y = MatMul(a, w)", {"w": weights(), "zero": np.float32(0)})
    found = quantize_static(path, lambda: iter([rows()]), ORT_X86_VNNI)
    constant = found.plan.activation("a")
    assert (constant.low, constant.high, constant.scale, constant.zero_point) == (0.0, 0.0, 1.0, 0)


def test_an_opset_without_the_type_that_cannot_be_raised(tmp_path):
    """int16 activations need opset 21, and this model cannot be brought there."""
    model = open_graph(write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights()}))
    scheme = replace(ORT_X86_VNNI, activation="int16")
    statistics = calibrate(model, iter([rows()]), observed_tensors(model.graph, scheme))
    plan = make_plan(model, statistics, scheme)
    node = next(iter(model.graph))
    node.op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"opset 17 and onnx cannot convert it to 21") as caught:
        render(model, plan)
    assert "opset 21 or later" in caught.value.hint


def test_an_opset_newer_than_the_runtime_is_told(tmp_path):
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights()}, opset=onnx.defs.onnx_opset_version())
    try:
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - onnxruntime has no class for it
        with pytest.raises(QuantizationError, match="does not load in onnxruntime"):
            quantize_static(path, lambda: iter([rows()]), ORT_X86_VNNI)
    else:
        pytest.skip("this onnxruntime loads every opset that this onnx knows")
