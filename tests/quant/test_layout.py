"""Where a scheme puts its pairs, and what a recipe may say about single nodes."""

import numpy as np
import onnx
import pytest
from networks import network, write_network

from qpipe.errors import QuantizationError
from qpipe.quant.graph import open_graph
from qpipe.quant.layout import lay_out
from qpipe.quant.operators import activation_axis
from qpipe.quant.options import QuantOptions
from qpipe.quant.rendering.dynamic import plan_dynamic
from qpipe.quant.rendering.tables import plan_tables
from qpipe.quant.schemes import FLOAT, LITERT, ORT_X86_VNNI
from qpipe.quant.static import quantize_static
from qpipe.records.quantization import Override

DRAWN = np.random.default_rng(5)
IMAGE = "(float[N,4,8,8] x) => (float[N,A,B,C] y)"


def opened(path, head, body, arrays):
    onnx.save(network(head, body, arrays), path)
    return open_graph(path)


def draw(*shape):
    return DRAWN.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("after", "bounds"),
    [
        ("Relu(c)", (0, np.inf)),
        ("Clip(c, zero, six)", (0, 6)),
        ("Clip(c, zero)", (0, np.inf)),
        ("Clip(c, , six)", (-np.inf, 6)),
        ("Clip(c)", (-np.inf, np.inf)),
        ("Clip(c, one, six)", None),  # zero is no value of it
        ("Clip(c, zero, found)", None),
        ("Clip(six, zero, found)", None),
    ],
)
def test_what_only_cuts_a_range_is_part_of_the_kernel_before_it(tmp_path, after, bounds):
    body = f"c = Conv(x, w) found = ReduceMax<keepdims=0>(c) r = {after} d = Conv(x, w) y = Add(r, d)"
    arrays = {"w": draw(4, 4, 1, 1), "zero": np.float32(0), "one": np.float32(1), "six": np.float32(6)}
    if "found" not in after:
        body = body.replace("found = ReduceMax<keepdims=0>(c) ", "")
    layout = lay_out(opened(tmp_path / "m.onnx", IMAGE, body, arrays).graph, LITERT)
    found = {bound.tensor: (bound.low, bound.high) for bound in layout.bounds}
    assert found.get("r") == bounds
    absorbed = [choice.op for choice in layout.nodes if choice.absorbed_into]
    assert absorbed == ([] if bounds is None else [after.split("(")[0]])


def test_a_constant_that_integers_are_added_to_has_a_range_with_zero(tmp_path):
    arrays = {"w": draw(4, 4, 1, 1), "k": np.abs(draw(1, 4, 8, 8)) + 5}
    path = write_network(tmp_path / "m.onnx", IMAGE, "c = Conv(x, w) a = Add(c, k) y = Conv(a, w)", arrays)
    plan = quantize_static(path, lambda: iter([{"x": draw(4, 4, 8, 8)}]), LITERT).plan
    spec = plan.activation("k")
    assert spec is not None
    assert (spec.low, spec.high) == (0, pytest.approx(arrays["k"].max()))


LOOKUP = "t = Gather(table, x) y = MatMul(t, w)"


@pytest.mark.parametrize(("keep", "tables"), [((), ["table"]), (("op:Gather",), []), (("op:MatMul",), ["table"])])
def test_a_recipe_keeps_tables_in_float(tmp_path, keep, tables):
    model = opened(
        tmp_path / "m.onnx",
        "(int64[N,M] x) => (float[N,M,K] y)",
        LOOKUP,
        {"table": draw(2000, 16), "w": draw(16, 4)},
    )
    found = plan_tables(model.graph, ORT_X86_VNNI, QuantOptions(keep_float=keep))
    assert [spec.tensor for spec in found] == tables


@pytest.mark.parametrize(
    ("overrides", "block"),
    [
        ((), None),
        ((Override(match="op:Gemm", keep_float=True),), None),
        ((Override(match="op:MatMul", weights="int4"),), None),
        ((Override(match="op:Gemm", weights="int4"), Override(match="op:Gemm", ranges="mse")), 32),
        ((Override(match="op:*", weights="int4"), Override(match="fc*", weights="int4", block_size=16)), 16),
    ],
)
def test_the_last_override_that_names_a_node_says_its_blocks(tmp_path, overrides, block):
    model = opened(tmp_path / "m.onnx", "(float[N,8] x) => (float[N,M] y)", "y = Gemm(x, w)", {"w": draw(8, 4)})
    model.graph[0].name = "fc1"
    assert QuantOptions(overrides=overrides).int4_block(model.graph[0]) == block


@pytest.mark.parametrize(
    ("body", "axis"),
    [
        ("y = Conv(x, w)", 1),
        ("y = MatMul(x, v)", -1),
        ("y = LayerNormalization(x, s)", -1),
        ("y = Sigmoid(x)", 1),
        ("z = Sigmoid(x) y = ReduceMean<axes=[2],keepdims=0>(z)", 1),
    ],
)
def test_the_channel_axis_is_that_of_the_operators_around(tmp_path, body, axis):
    arrays = {"w": draw(4, 4, 1, 1), "v": draw(8, 8), "s": draw(8)}
    model = opened(tmp_path / "m.onnx", IMAGE.replace("A,B,C", "A,B,C" if "axes" not in body else "A,B"), body, arrays)
    assert activation_axis(model.graph.inputs[0]) == axis


def test_a_scheme_without_dynamic_kernels_says_so(tmp_path):
    model = opened(tmp_path / "m.onnx", "(float[N,8] x) => (float[N,M] y)", "y = MatMul(x, w)", {"w": draw(8, 4)})
    with pytest.raises(QuantizationError, match="'float' has no dynamically quantized kernels"):
        plan_dynamic(model, FLOAT)
