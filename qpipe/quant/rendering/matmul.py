"""DQ + MatMul (+ bias) with a float output as onnxruntime's MatMulIntegerToFloat, bias and all.

onnxruntime makes that kernel of Q/DQ pairs by itself, but leaves the Add behind it alone.
Source: onnxruntime, docs/ContribOperators.md, com.microsoft.MatMulIntegerToFloat.
"""

from __future__ import annotations

import onnx_ir as ir

from qpipe.quant.edits import take_place
from qpipe.quant.graph import constant, only_consumer

MICROSOFT = "com.microsoft"


def fuse_matmuls(graph: ir.Graph) -> int:
    """Fuse every MatMul of two dequantized inputs, constant weights and a float output, in place; how many."""
    count = 0
    for node in list(graph):
        if node.op_type == "MatMul" and node.domain == "" and _fusable(graph, node):
            _fuse(graph, node)
            count += 1
    return count


def _fusable(graph: ir.Graph, node: ir.Node) -> bool:
    sources = [value.producer() if value is not None else None for value in node.inputs]
    if any(source is None or source.op_type != "DequantizeLinear" for source in sources):
        return False
    after = only_consumer(node.outputs[0], graph)
    weight = sources[1].inputs[0] if sources[1] is not None else None
    if sources[1] is not None and "block_size" in sources[1].attributes:
        return False
    return constant(weight) is not None and (after is None or after.op_type != "QuantizeLinear")


def _fuse(graph: ir.Graph, node: ir.Node) -> None:
    data, weight = (value.producer() for value in node.inputs if value is not None)
    assert data is not None
    assert weight is not None
    inputs = [data.inputs[0], weight.inputs[0], data.inputs[1], weight.inputs[1], data.inputs[2], weight.inputs[2]]
    add = only_consumer(node.outputs[0], graph)
    bias = _bias(add, node.outputs[0], weight.inputs[1]) if add is not None else None
    last = add if bias is not None and add is not None else node
    fused = ir.node(
        "MatMulIntegerToFloat", [*inputs, *([bias] if bias is not None else [])], domain=MICROSOFT, name=node.name
    )
    graph.insert_before(last, fused)
    take_place(last.outputs[0], fused.outputs[0])
    graph.remove([add, node] if last is not node and add is not None else node, safe=True)
    graph.remove([source for source in dict.fromkeys((data, weight)) if _dead(source)], safe=True)


def _bias(add: ir.Node, data: ir.Value, scale: ir.Value | None) -> ir.Value | None:
    """The constant vector that the following Add brings, if there is one entry per output channel."""
    if add.op_type != "Add":
        return None
    bias = add.inputs[1] if add.inputs[0] is data else add.inputs[0]
    array, scales = constant(bias), constant(scale)
    if array is None or scales is None or array.ndim != 1 or (scales.ndim == 1 and array.size != scales.size):
        return None
    return bias if array.size > 1 else None


def _dead(node: ir.Node) -> bool:
    return all(not value.uses() and not value.is_graph_output() for value in node.outputs)
