"""Operators that do nothing at inference: Identity and Dropout of the main graph."""

from __future__ import annotations

import onnx_ir as ir

from qpipe.quant.graph import constant


def drop_identities(graph: ir.Graph) -> None:
    """Take out Identity and inference-mode Dropout, except where they name a graph output."""
    for node in list(graph):
        output = node.outputs[0]
        if node.op_type not in {"Identity", "Dropout"} or output.is_graph_output() or node.inputs[0] is None:
            continue
        training = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if (len(node.inputs) > 2 and training is None) or (training is not None and training.any()):
            continue
        if any(extra.uses() or extra.is_graph_output() for extra in node.outputs[1:]):
            continue
        output.replace_all_uses_with(node.inputs[0])
        graph.remove(node, safe=True)
