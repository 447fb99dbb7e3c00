"""Gemm in the form that integer kernels take: alpha and beta of 1, and MatMul + bias on rank-2 inputs as Gemm."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qpipe.quant.edits import absorb, replace_constant
from qpipe.quant.graph import attr_float, constant, input_at, only_consumer, rank_of


def normalize_gemms(graph: ir.Graph) -> int:
    """Fold alpha and beta into Gemm's weights and join rank-2 MatMul + Add; how many of both."""
    passes = {"Gemm": _fold_factors, "MatMul": _join}
    return sum(passes[node.op_type](graph, node) for node in list(graph) if node.op_type in passes)


def _fold_factors(graph: ir.Graph, node: ir.Node) -> bool:
    alpha, beta = attr_float(node, "alpha", 1.0), attr_float(node, "beta", 1.0)
    weight = constant(node.inputs[1])
    bias = constant(input_at(node, 2))
    computed_bias = bias is None and input_at(node, 2) is not None
    if (alpha == 1.0 and beta == 1.0) or weight is None or weight.dtype != np.float32 or computed_bias:
        return False
    replace_constant(graph, node, 1, np.asarray(weight, np.float32) * np.float32(alpha))
    if bias is not None:
        replace_constant(graph, node, 2, np.asarray(bias, np.float32) * np.float32(beta))
    node.attributes.pop("alpha", None)
    node.attributes.pop("beta", None)
    return True


def _join(graph: ir.Graph, node: ir.Node) -> bool:
    data, weight = node.inputs[0], constant(node.inputs[1])
    add = only_consumer(node.outputs[0], graph)
    if data is None or rank_of(data) != 2 or weight is None or weight.ndim != 2 or add is None or add.op_type != "Add":
        return False
    side = 1 if add.inputs[0] is node.outputs[0] else 0
    bias = constant(add.inputs[side])
    if bias is None or bias.shape != (weight.shape[1],):
        return False
    node.op_type = "Gemm"
    node.resize_inputs(3)
    node.replace_input_with(2, add.inputs[side])
    absorb(graph, add, node)
    return True
