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
OTHERS = """
    s = HardSigmoid<alpha = 0.2, beta = 0.5>(x)
    m = Mul(x, s)
    a = Add(m, three)
    c = Clip(a, zero, six)
    p = Mul(m, c)
    y = Div(p, three)
"""


def converted(body: str, folder: Path, options: Options | None = None) -> FlatModel:
    """Converted and, by the converter's own rule, compared with onnxruntime."""
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4,6,5] x) => (float[N,4,6,5] y)'
    model = onnx.parser.parse_model(f"{head} {{ {body} }}")
    for name, value in (("three", 3), ("zero", 0), ("six", 6)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    ready = edge.prepared(model, folder)
    return read_flatbuffer(convert(ready, folder, options or Options(), tool_environment()).path)


def kinds(flat: FlatModel) -> list[str]:
    return sorted(op.name for op in flat.ops if op.name not in {"TRANSPOSE", "RESHAPE"})


@pytest.mark.usefixtures("tool")
@pytest.mark.parametrize(
    ("body", "kernels", "expected"),
    [
        (SWISHES, "xnnpack", ["HARD_SWISH"] * 3),
        (SWISHES, "reference", ["ADD"] * 3 + ["MUL"] * 6),
        (GATE, "xnnpack", ["ADD", "MUL", "MUL", "RELU"]),
        (OTHERS, "xnnpack", ["ADD", "ADD", "MUL", "MUL", "MUL", "MUL", "RELU_0_TO_1"]),
    ],
)
def test_what_the_converter_wrote_out(body: str, kernels: str, expected: list[str], tmp_path: Path) -> None:
    flat = converted(body, tmp_path, Options(kernels=kernels))  # type: ignore[arg-type]  # a parameter of the test
    assert kinds(flat) == expected


@pytest.mark.usefixtures("tool")
def test_a_hard_swish_stays_float_with_the_reason(tmp_path: Path) -> None:
    flat = converted("y = HardSwish(x)", tmp_path)
    plan = QuantPlan(scheme=LITERT, mode="static", nodes=(), activations=(), weights=())
    (left,) = ops_left_in_float(plan, flat, {}, CarriedRanges(ranges={}, missing=()), {})
    assert (left.op, left.reason) == ("HARD_SWISH", "XNNPACK has no integer kernel for it")
