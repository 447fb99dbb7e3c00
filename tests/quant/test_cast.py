"""bfloat16: the graph is valid ONNX, its border stays float32, and it computes what bfloat16 can.

onnxruntime's CPU has few bfloat16 kernels, so the numbers come from onnx's own reference implementation.
"""

import ml_dtypes
import numpy as np
import onnx
import pytest
from many_graphs import CASES as EVERY
from many_graphs import build, rows_for
from networks import run, sqnr_db, write_network
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from qpipe.errors import QuantizationError, TargetError
from qpipe.prepare import builtin_recipe
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.rendering.cast import BLOCKED, cast_half, takes
from qpipe.quant.schemes import ORT_ARM64, ORT_X86_VNNI, TENSORRT

# the reference implementation does not run Loop and Scan as onnxruntime does, not in float32 either
CASES = [case for case in EVERY if not case.refused and "Loop(" not in case.body and "Scan" not in case.body]


def write(path, body, weights, opset=17, head="(float[N,16] x) => (float[N,M] y)"):
    return write_network(path, head, body, weights, opset)


def weights(*shape):
    return (np.random.default_rng(0).standard_normal(shape) * 0.3).astype(np.float32)


def cast(source, target, **keywords):
    save_graph(cast_half(open_graph(source), "bfloat16", **keywords), target)
    proto = onnx.load(target)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_graph_is_valid_and_close(case, tmp_path):
    onnx.save(build(case), tmp_path / "float.onnx")
    rows = rows_for(build(case), 3)
    proto = cast(tmp_path / "float.onnx", tmp_path / "low.onnx")
    reference = run(tmp_path / "float.onnx", rows)
    outputs = ReferenceEvaluator(proto).run(None, rows)
    for old, new in zip(reference, outputs, strict=True):
        assert new.dtype == old.dtype
        # 8 bits of mantissa: half a step is 2^-9 of a value, 54 dB; errors add up over a few layers
        assert sqnr_db(old, new.astype(np.float32)) >= 35
    border = [*proto.graph.input, *proto.graph.output]
    assert TensorProto.BFLOAT16 not in {value.type.tensor_type.elem_type for value in border}


def test_one_product_rounds_its_weights_and_rows_to_bfloat16(tmp_path):
    proto = cast(write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights(16, 8)}), tmp_path / "low.onnx")
    rows = np.random.default_rng(1).standard_normal((4, 16)).astype(np.float32)
    low = ml_dtypes.bfloat16
    wanted = rows.astype(low).astype(np.float32) @ weights(16, 8).astype(low).astype(np.float32)
    [found] = ReferenceEvaluator(proto).run(None, {"x": rows})
    np.testing.assert_allclose(found, wanted, rtol=2**-7, atol=2**-7)
    assert proto.opset_import[0].version == 17, "MatMul is defined in bfloat16 already"
    assert [tensor.data_type for tensor in proto.graph.initializer] == [TensorProto.BFLOAT16]
    assert (tmp_path / "low.onnx").stat().st_size < (tmp_path / "m.onnx").stat().st_size


@pytest.mark.parametrize("made", ["Constant<value = float[16] {%s}>()", "ConstantOfShape(s)", "HannWindow(n)"])
def test_numbers_that_a_graph_makes_itself_are_of_the_type_that_is_read(tmp_path, made):
    made = made.replace("%s", ", ".join(f"{value / 8}" for value in range(16)))
    body = f"n = Constant<value = int64 {{16}}>() s = Shape(x) c = {made} y = Add(x, c)"
    path = write(tmp_path / "m.onnx", body, {})
    rows = {"x": np.ones((2, 16), np.float32)}
    [found] = ReferenceEvaluator(cast(path, tmp_path / "low.onnx")).run(None, rows)
    np.testing.assert_allclose(found, run(path, rows)[0], rtol=2**-7)


@pytest.mark.parametrize("body", ["y = Conv(x, w)", "c = Conv(x, w) y = Relu(c)"])
def test_convolutions_raise_the_opset_to_one_that_defines_them(tmp_path, body):
    head = "(float[N,3,8,8] x) => (float[N,C,H,W] y)"
    path = write(tmp_path / "m.onnx", body, {"w": weights(4, 3, 3, 3)}, 13, head)
    assert cast(path, tmp_path / "low.onnx").opset_import[0].version == 22


@pytest.mark.parametrize("keep", ["MatMul", "second"])
def test_listed_operators_and_nodes_stay_float32_between_casts(tmp_path, keep):
    path = write(tmp_path / "m.onnx", "a = Gemm(x, w, b) y = MatMul(a, w)", {"w": weights(16, 16), "b": weights(16)})
    model = onnx.load(path)
    model.graph.node[1].name = "second"
    onnx.save(model, path)
    proto = cast(path, tmp_path / "low.onnx", keep_float=(*BLOCKED, keep))
    assert [node.op_type for node in proto.graph.node] == ["Cast", "Gemm", "Cast", "MatMul"]
    types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    kept = next(node for node in proto.graph.node if node.op_type == "MatMul")
    assert types[kept.input[1]] == TensorProto.FLOAT
    assert types[proto.graph.node[1].input[1]] == TensorProto.BFLOAT16


@pytest.mark.parametrize("op", sorted(set(BLOCKED) & {"LSTM", "GRU"}))
def test_recurrent_operators_stay_float32(tmp_path, op):
    gates = {"LSTM": 4, "GRU": 3}[op]
    head = "(float[L,N,16] x) => (float[L,D,N,M] h)"
    arrays = {"w": weights(1, gates * 8, 16), "r": weights(1, gates * 8, 8)}
    path = write(tmp_path / "m.onnx", f"t = Tanh(x) h = {op}<hidden_size=8>(t, w, r)", arrays, head=head)
    proto = cast(path, tmp_path / "low.onnx")
    assert {tensor.data_type for tensor in proto.graph.initializer} == {TensorProto.FLOAT}
    assert [node.op_type for node in proto.graph.node] == ["Cast", "Tanh", "Cast", op]


def test_what_onnx_does_not_define_in_bfloat16_stays_float32(tmp_path):
    path = write(tmp_path / "m.onnx", "m = MatMul(x, w) a = Acos(m) y = Det(a)", {"w": weights(16, 4)}, 20)
    nodes = {node.op_type: node for node in open_graph(path).graph}
    assert not takes(nodes["Acos"], "bfloat16", 20)
    assert takes(nodes["Acos"], "bfloat16", 22)
    assert not takes(nodes["Det"], "bfloat16", 21)
    assert takes(nodes["MatMul"], "bfloat16", 20)


def test_a_value_that_bfloat16_cannot_hold_is_named(tmp_path):
    large = weights(16, 8)
    large[0, 0] = np.finfo(np.float32).max
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": large})
    with pytest.raises(QuantizationError, match=r"tensor 'w' holds 3\.4e\+38, more than bfloat16 can"):
        cast_half(open_graph(path), "bfloat16")
    kept = cast(path, tmp_path / "low.onnx", keep_float=("MatMul",))
    assert [tensor.data_type for tensor in kept.graph.initializer] == [TensorProto.FLOAT]


def test_what_float16_cannot_hold_bfloat16_can(tmp_path):
    path = write(tmp_path / "m.onnx", "y = MatMul(x, w)", {"w": weights(16, 8) * np.float32(1e6)})
    with pytest.raises(QuantizationError, match="more than float16 can"):
        cast_half(open_graph(path), "float16")
    cast(path, tmp_path / "low.onnx")


@pytest.mark.parametrize("scheme", [ORT_X86_VNNI, ORT_ARM64], ids=lambda scheme: scheme.name)
def test_onnxruntime_refuses_bfloat16_in_one_line(scheme):
    with pytest.raises(TargetError) as caught:
        builtin_recipe("bf16", scheme)
    assert caught.value.message == f"scheme {scheme.name!r} has no bfloat16 kernels"
    assert "\n" not in f"{caught.value.message}{caught.value.hint}"
    assert [stage.name for stage in builtin_recipe("bf16", TENSORRT).stages] == ["bf16"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("p = MatMul(x, w) y = Mul(p, huge)", "keep_float: [node_1]"),
        ("c = Constant<value = float {-150000.0}>() p = MatMul(x, w) y = Add(p, c)", "keep_float: [node_"),
        ("p = MatMul(x, w) m = Add(p, huge) q = Softmax(m) y = Add(q, m)", "keep_float: [node_1]"),
    ],
)
def test_a_factor_that_float16_cannot_hold_is_no_mask(body, word, tmp_path):
    path = write(tmp_path / "m.onnx", body, {"w": weights(16, 8), "huge": np.float32(150000.0)})
    with pytest.raises(QuantizationError, match=r"holds 1\.5e\+05, more than float16 can") as told:
        cast_half(open_graph(path), "float16")
    assert word in told.value.hint


def test_a_number_that_goes_many_ways_is_followed_along_each_once(tmp_path):
    """Sixty sums of a value with itself are 2^60 ways through the graph."""
    doubled = " ".join(f"a{one + 1} = Add(a{one}, a{one})" for one in range(60))
    body = f"p = MatMul(x, w) a0 = Neg(huge) {doubled} m = Add(p, a60) y = Softmax(m)"
    path = write(tmp_path / "m.onnx", body, {"w": weights(16, 8), "huge": np.float32(150000.0)})
    assert cast_half(open_graph(path), "float16", keep_float=()).graph.outputs


@pytest.mark.parametrize(
    "body", ["p = MatMul(x, w) y = Clip(p, , huge)", "p = MatMul(x, w) n = Neg(huge) m = Where(c, n, p) y = Softmax(m)"]
)
def test_a_mask_or_a_bound_is_clipped(body, tmp_path):
    arrays = {"w": weights(16, 8), "huge": np.float32(3e38), "c": np.arange(8) > 4}
    path = write(tmp_path / "m.onnx", body, arrays)
    save_graph(cast_half(open_graph(path), "float16"), tmp_path / "low.onnx")
    rows = {"x": np.random.default_rng(1).standard_normal((4, 16)).astype(np.float32)}
    for old, new in zip(run(path, rows), run(tmp_path / "low.onnx", rows), strict=True):
        assert sqnr_db(old, new) >= 40
