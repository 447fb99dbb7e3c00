"""BatchNorm and channel-wise Mul, Div, Add, Sub after a weighted operator go into its weights and bias.

Source: w' = w·γ/√(σ²+ε), b' = (b − μ)·γ/√(σ²+ε) + β (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qpipe.quant.edits import absorb, replace_constant, set_bias
from qpipe.quant.graph import attr_float, attr_int, constant, input_at, only_consumer, rank_of
from qpipe.quant.numbers import F64
from qpipe.quant.operators import WEIGHTED, is_plain, is_transposed, out_channels


def fold_affine(graph: ir.Graph) -> int:
    """Fold every affine node that follows a weighted operator; how many."""
    done = 0
    for node in list(graph):
        if node.op_type not in WEIGHTED or not is_plain(node):
            continue
        while _fold_next(graph, node):
            done += 1
    return done


def _fold_next(graph: ir.Graph, node: ir.Node) -> bool:
    after = only_consumer(node.outputs[0], graph)
    if after is None:
        return False
    channels = out_channels(node)
    affine = _affine_of(after, node.outputs[0], channels, rank_of(node.outputs[0]), node.op_type)
    if affine is None or (node.op_type == "MatMul" and np.any(affine[1])):
        return False
    _apply(graph, node, *affine)
    absorb(graph, after, node)
    return True


def _affine_of(after: ir.Node, data: ir.Value, channels: int, rank: int | None, op: str) -> tuple[F64, F64] | None:
    """(factor, offset) per channel of the following node, or None where it is not channel-wise."""
    if after.op_type == "BatchNormalization" and op in {"Conv", "ConvTranspose", "Gemm"}:
        return _batch_norm(after)
    if after.op_type not in {"Mul", "Div", "Add", "Sub"} or rank is None:
        return None
    first = after.inputs[0] is data
    other = constant(after.inputs[1 if first else 0])
    if other is None or other.dtype != np.float32 or (not first and after.op_type == "Div"):
        return None
    vector = _per_channel(np.asarray(other, np.float64), channels, rank, axis=1 if op.startswith("Conv") else rank - 1)
    if vector is None:
        return None
    return _arithmetic(after.op_type, vector, first=first)


def _arithmetic(op: str, vector: F64, *, first: bool) -> tuple[F64, F64] | None:
    """(factor, offset) of an operator with a constant; `first` where the data come before it."""
    ones, zeros = np.ones_like(vector), np.zeros_like(vector)
    if op == "Div":
        return (1.0 / vector, zeros) if vector.all() else None  # an infinite weight is no weight
    found = {"Mul": (vector, zeros), "Add": (ones, vector), "Sub": (ones, -vector) if first else (-ones, vector)}
    return found[op]


def _batch_norm(node: ir.Node) -> tuple[F64, F64] | None:
    arrays = [constant(value) for value in node.inputs[1:5]]
    unused = all(not value.uses() and not value.is_graph_output() for value in node.outputs[1:])
    if attr_int(node, "training_mode", 0) or not unused or any(array is None for array in arrays):
        return None
    scale, shift, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    factor = scale / np.sqrt(variance + attr_float(node, "epsilon", 1e-5))
    return factor, shift - mean * factor


def _per_channel(array: F64, channels: int, rank: int, axis: int) -> F64 | None:
    """The constant as one number per channel, or None where it varies along another axis or adds axes."""
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for place, size in enumerate(shape) if place != axis) or shape[axis] not in {1, channels}:
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).copy()


def _apply(graph: ir.Graph, node: ir.Node, factor: F64, offset: F64) -> None:
    weight = constant(node.inputs[1])
    assert weight is not None
    scaled = np.asarray(weight, np.float64) * spread(node, factor)
    replace_constant(graph, node, 1, scaled.astype(np.float32))
    bias = constant(input_at(node, 2))
    if bias is None and not np.any(offset):
        return
    old = np.zeros(1) if bias is None else np.asarray(bias, np.float64).reshape(-1)
    set_bias(graph, node, (old * factor + offset).astype(np.float32))


def spread(node: ir.Node, per_channel: F64) -> F64:
    """One number per output channel, shaped to multiply the node's weights."""
    weight = constant(node.inputs[1])
    assert weight is not None
    if node.op_type == "Conv":
        return per_channel.reshape((-1,) + (1,) * (weight.ndim - 1))
    if node.op_type == "ConvTranspose":
        group = attr_int(node, "group", 1)
        rows = np.repeat(per_channel.reshape(group, -1), weight.shape[0] // group, axis=0)
        return rows.reshape(rows.shape + (1,) * (weight.ndim - 2))
    if is_transposed(node):
        return per_channel.reshape(-1, 1)
    return per_channel
