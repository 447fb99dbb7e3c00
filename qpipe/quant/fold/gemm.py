"""Gemm in the form that integer kernels take: alpha and beta of 1, and MatMul + bias on rank-2 inputs as Gemm."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qpipe.quant.edits import absorb, replace_constant
from qpipe.quant.graph import attr_float, constant, input_at, only_consumer, rank_of


def normalize_gemms(graph: ir.Graph) -> list[tuple[str, str]]:
    """Fold alpha and beta into Gemm's weights and join rank-2 MatMul + Add; (node gone, node that took it)."""
    done: list[tuple[str, str]] = []
    for node in list(graph):
        if node.op_type == "Gemm":
            _fold_factors(graph, node)
        elif node.op_type == "MatMul":
            joined = _join(graph, node)
            if joined:
                done.append((joined, node.name or ""))
    return done


def _fold_factors(graph: ir.Graph, node: ir.Node) -> None:
    alpha, beta = attr_float(node, "alpha", 1.0), attr_float(node, "beta", 1.0)
    weight = constant(node.inputs[1])
    bias = constant(input_at(node, 2))
    computed_bias = bias is None and input_at(node, 2) is not None
    if (alpha == 1.0 and beta == 1.0) or weight is None or computed_bias:
        return
    if weight.dtype != np.float32:
        return
    replace_constant(graph, node, 1, np.asarray(weight, np.float32) * np.float32(alpha))
    if bias is not None:
        replace_constant(graph, node, 2, np.asarray(bias, np.float32) * np.float32(beta))
    node.attributes.pop("alpha", None)
    node.attributes.pop("beta", None)


def _join(graph: ir.Graph, node: ir.Node) -> str:
    data, weight = node.inputs[0], constant(node.inputs[1])
    add = only_consumer(node.outputs[0], graph)
    if data is None or rank_of(data) != 2 or weight is None or weight.ndim != 2 or add is None or add.op_type != "Add":
        return ""
    side = 1 if add.inputs[0] is node.outputs[0] else 0
    bias = constant(add.inputs[side])
    if bias is None or bias.shape != (weight.shape[1],):
        return ""
    node.op_type = "Gemm"
    node.resize_inputs(3)
    node.replace_input_with(2, add.inputs[side])
    absorb(graph, add, node)
    return add.name or ""
