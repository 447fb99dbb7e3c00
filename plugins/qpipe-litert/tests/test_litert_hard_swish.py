"""Hard swish and hard sigmoid become operators that have kernels, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import edge_models as edge
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from qpipe_litert.convert import convert
from qpipe_litert.flatbuffer import FlatModel, read_flatbuffer
from qpipe_litert.hard_swish import write_out_hard_swish
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.options import Options
from qpipe_litert.quantize import ops_left_in_float
from qpipe_litert.ranges import CarriedRanges
from qpipe_litert.tools import tool_environment

from qpipe.quant.schemes import LITERT
from qpipe.records.quantization import QuantPlan

SWISHES = """
    h = HardSwish(x)
    s = HardSigmoid<alpha = 0.16666667, beta = 0.5>(h)
    m = Mul(h, s)
    a = Add(m, three)
    c = Clip(a, zero, six)
    p = Mul(m, c)
    y = Div(p, six)
"""
GATE = """
    s = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x)
    h = Relu(x)
    y = Mul(h, s)
"""
CLIPPED = """
    c = Conv<kernel_shape = [1, 1]>(x, w, b)
    y = Clip(c, zero, one)
"""
OTHERS = """
    s = HardSigmoid<alpha = 0.2, beta = 0.5>(x)
    m = Mul(x, s)
    a = Add(m, three)
    c = Clip(a, zero, six)
    p = Mul(m, c)
    y = Div(p, three)
"""


def converted(body: str, folder: Path) -> Path:
    """Converted and, by the converter's own rule, compared with onnxruntime."""
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] y)'
    model = onnx.parser.parse_model(f"{head} {{ {body} }}")
    for name, value in (("three", 3), ("zero", 0), ("one", 1), ("six", 6)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    squeeze = np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(squeeze, "w"))
    model.graph.initializer.append(numpy_helper.from_array(squeeze[:, 0, 0, 0], "b"))
    return convert(edge.prepared(model, folder), folder, Options(), tool_environment()).path


def kinds(flat: FlatModel) -> list[str]:
    return sorted(op.name for op in flat.ops if op.name not in {"TRANSPOSE", "RESHAPE"})


@pytest.mark.usefixtures("tool")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (SWISHES, ["HARD_SWISH"] * 3),
        (GATE, ["ADD", "MUL", "MUL", "RELU"]),
        (CLIPPED, ["CONV_2D", "MUL"]),  # so are hard sigmoids whose sum the converter folds into the convolution
        (OTHERS, ["ADD", "ADD", "MUL", "MUL", "MUL", "MUL", "MUL", "MUL"]),
    ],
)
def test_what_the_converter_wrote_out(body: str, expected: list[str], tmp_path: Path) -> None:
    assert kinds(read_flatbuffer(converted(body, tmp_path))) == expected


@pytest.mark.usefixtures("tool")
def test_a_hard_swish_stays_float_with_the_reason(tmp_path: Path) -> None:
    flat = read_flatbuffer(converted("y = HardSwish(x)", tmp_path))
    plan = QuantPlan(scheme=LITERT, mode="static", nodes=(), activations=(), weights=())
    (left,) = ops_left_in_float(plan, flat, {}, CarriedRanges(ranges={}, missing=()), {})
    assert (left.op, left.reason) == ("HARD_SWISH", "XNNPACK has no integer kernel for it")
    assert ops_left_in_float(plan, flat, {}, CarriedRanges(ranges={}, missing=()), {}, kernels="reference") == ()


@pytest.mark.usefixtures("tool")
def test_a_float_hard_swish_is_written_out_for_an_npu(tmp_path: Path) -> None:
    path = converted("y = HardSwish(x)", tmp_path)
    rows = np.linspace(-6, 6, 120, dtype=np.float32).reshape(1, 6, 5, 4)
    (wanted,) = invoke(open_interpreter(path), (rows,))
    path.write_bytes(write_out_hard_swish(path.read_bytes()))
    assert kinds(read_flatbuffer(path)) == ["ADD", "MUL", "MUL"]
    (found,) = invoke(open_interpreter(path), (rows,))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
