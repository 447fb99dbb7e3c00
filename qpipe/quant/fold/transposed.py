"""Transposed weights: an embedding table that is the output layer too stands in the graph once, and is turned for it.

Exports that tie both write MatMul(x, Transpose(table)): no operator that multiplies by a constant, until it is turned.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qpipe.quant.edits import drop_unread, make_constant
from qpipe.quant.graph import attr_ints, constant


def fold_transposes(graph: ir.Graph) -> None:
    """Give MatMuls that read a transposed matrix one that is turned already, in place.

    The matrix stays for its other readers; the turned one shares its memory.
    """
    for node in list(graph):
        if node.op_type == "Transpose" and node.domain == "" and _turns_weight(graph, node):
            _turn(graph, node)


def _turns_weight(graph: ir.Graph, node: ir.Node) -> bool:
    array, turned = constant(node.inputs[0]), node.outputs[0]
    if array is None or array.dtype != np.float32 or array.ndim != 2 or attr_ints(node, "perm", (1, 0)) != (1, 0):
        return False
    if turned.is_graph_output() or not turned.uses():
        return False
    return all(_multiplies(graph, use.node, use.idx) for use in turned.uses())


def _multiplies(graph: ir.Graph, node: ir.Node, index: int) -> bool:
    return node.op_type == "MatMul" and index == 1 and node.graph is graph


def _turn(graph: ir.Graph, node: ir.Node) -> None:
    matrix = node.inputs[0]
    array = constant(matrix)
    assert array is not None
    assert matrix is not None
    make_constant(graph, node.outputs[0], array.T)
    graph.remove(node, safe=True)
    drop_unread(graph, matrix)
