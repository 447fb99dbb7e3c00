"""Gemm in the form that integer kernels take: alpha and beta of 1, and MatMul + bias on rank-2 inputs as Gemm."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.quant.graph import (
    add_initializer,
    attr_float,
    constant,
    fresh_name,
    name_of,
    only_consumer,
    rank_of,
)


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
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    if (alpha == 1.0 and beta == 1.0) or weight is None or (has_bias and bias is None):
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


def replace_constant(graph: ir.Graph, node: ir.Node, index: int, array: NDArray[np.float32]) -> None:
    """Give a node a new constant input; one that nobody else reads is changed in place and keeps its name."""
    value = node.inputs[index]
    if value is not None and value.is_initializer() and len(value.uses()) == 1 and not value.is_graph_output():
        value.const_value = ir.Tensor(array, name=value.name)
        value.shape = ir.Shape(array.shape)
        return
    base = f"{node.name}/constant" if value is None else name_of(value)
    node.replace_input_with(index, add_initializer(graph, fresh_name(graph, base), array))


def absorb(graph: ir.Graph, gone: ir.Node, into: ir.Node) -> None:
    """Take `gone` out, the only reader of `into`'s output, which takes over its tensor (name, shape, dtype)."""
    output, kept = gone.outputs[0], into.outputs[0]
    name, shape, dtype = output.name, output.shape, output.dtype
    output.replace_all_uses_with(kept, replace_graph_outputs=output.is_graph_output())
    graph.remove(gone, safe=True)
    kept.name = name
    kept.shape = shape
    if dtype is not None:
        kept.dtype = dtype
