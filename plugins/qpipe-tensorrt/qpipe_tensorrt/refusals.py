"""Graphs that TensorRT cannot execute as meant, refused by name before the builder sees them.

The parser takes some of these without a word that a user would see: a uint8 zero point of 0 becomes int8, which shifts
every value. Source: NVIDIA TensorRT 11, "Working with Quantized Types", and the parser's own behaviour (1.7.1.116).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import RefusedError
from qpipe_tensorrt import capability

if TYPE_CHECKING:
    from qpipe.records.tensors import ShapeRange
    from qpipe_tensorrt.onnxgraph import OnnxGraph, Pair

_QUANTIZED = {"INT8": "int8", "INT4": "int4", "FLOAT8E4M3FN": "fp8"}
_TYPES = {"FLOAT8E4M3FN": "fp8", "INT4": "int4", "BFLOAT16": "bf16"}
_SYMMETRIC_HINT = "give the float model with the recipe int8, or quantize like TensorRT: symmetric int8, float biases"
_INTEGER_OPS = (
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
)


def refuse(graph: OnnxGraph, capabilities: tuple[str, ...], shapes: tuple[ShapeRange, ...]) -> None:
    """Refuse what TensorRT would misread or reject with less to go by.

    Raises:
        RefusedError: with the node or input, what was found, and what would be right.
    """
    _refuse_operators(graph)
    for name in graph.doubles:
        raise RefusedError(
            f"`{name}` is float64, which TensorRT has not: its parser would take it as float32 without a word",
            hint="make it float32 in the model",
        )
    for pair in graph.pairs:
        _refuse_pair(pair)
    for dtype in graph.dtypes:
        _refuse_type(dtype, capabilities)
    given = {shape.name for shape in shapes}
    for name in graph.dynamic_inputs:
        if name not in given:
            raise RefusedError(
                f"input `{name}` has a dynamic shape and no range for it",
                hint="an optimization profile needs the smallest, usual and largest shape of every dynamic input",
            )


def _refuse_operators(graph: OnnxGraph) -> None:
    for node in graph.nodes:
        bare = node.op.rpartition(".")[2]
        if bare in _INTEGER_OPS or bare.startswith("QLinear") or bare in ("MatMulNBits", "DynamicQuantizeMatMul"):
            raise RefusedError(
                f"node `{node.name}` is a {node.op}: TensorRT takes integers as explicit Q/DQ pairs alone",
                hint=_SYMMETRIC_HINT,
            )


def _refuse_pair(pair: Pair) -> None:
    where = f"node `{pair.node}` ({pair.op})"
    if pair.dtype == "INT32":
        raise RefusedError(f"{where} has an int32 input: TensorRT keeps biases in float", hint=_SYMMETRIC_HINT)
    if pair.dtype not in (*_QUANTIZED, "unknown", "FLOAT4E2M1"):
        raise RefusedError(f"{where} is {pair.dtype.lower()}: TensorRT takes int8, int4 and fp8", hint=_SYMMETRIC_HINT)
    if not pair.symmetric:
        raise RefusedError(f"{where} has a zero point that is not 0: TensorRT is symmetric", hint=_SYMMETRIC_HINT)


def _refuse_type(dtype: str, capabilities: tuple[str, ...]) -> None:
    precision = _TYPES.get(dtype)
    for number in capabilities if precision else ():
        if not capability.has(number, precision or ""):
            raise RefusedError(
                f"the graph holds {precision}, which compute capability {number} has not",
                hint=f"it has {', '.join(capability.precisions(number))}",
            )
