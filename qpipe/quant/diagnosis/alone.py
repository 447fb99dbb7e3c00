"""What one layer costs by itself: its integers on the float model's own inputs, whatever was lost before it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common as passes

from qpipe.quant.numbers import onnx_type
from qpipe.records.quantization import QuantPlan

SUFFIX = "_quantized"
"""Behind a tensor's name in a Q/DQ graph: its integers."""
FED = "/float"
"""Behind a tensor's name: the input with its values in the float model."""


def cut(qdq: ir.Model, plan: QuantPlan, shown: Sequence[str]) -> tuple[ir.Model, tuple[str, ...]]:
    """A copy of the Q/DQ graph that gives the integers of these tensors, and the tensors it takes as further inputs.

    What reads a quantized tensor reads an input instead, which is fed with the float model's values: a layer begins
    where the one before it ends. A tensor's own quantizer stays behind what computes it.
    """
    copy = qdq.clone()
    graph = copy.graph
    values = {value.name: value for node in graph for value in node.outputs}
    inputs = {value.name for value in graph.inputs}
    graph.outputs.clear()
    fed: dict[str, ir.Value] = {}
    for spec in plan.activations:
        end = values.get(spec.tensor + SUFFIX)
        if end is None:
            continue
        if spec.tensor not in inputs:
            fed[spec.tensor] = _begin(graph, spec.tensor, values.get(spec.tensor), end)
        if spec.tensor in shown:
            end.dtype = end.dtype or onnx_type(spec.dtype)
            graph.outputs.append(end)
    passes.RemoveUnusedNodesPass()(copy)
    for value in fed.values():
        if not value.uses():
            graph.inputs.remove(value)
    return copy, tuple(name for name, value in fed.items() if value.uses())


def _begin(graph: ir.Graph, tensor: str, value: ir.Value | None, end: ir.Value) -> ir.Value:
    """Let all that reads a tensor, as float or as integers, read a new input of the graph.

    `value` is None where the graph has its integers alone: the quantizer does the Relu or Clip that wrote it.
    """
    quantizer = end.producer()
    assert quantizer is not None
    fed = ir.Value(name=f"{tensor}{FED}", type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(fed)
    readers = [(node, index) for node, index in value.uses() if node is not quantizer] if value else []
    for node, index in readers:
        node.replace_input_with(index, fed)
    if integer := list(end.uses()):
        again = ir.node(
            quantizer.op_type,
            [fed, *quantizer.inputs[1:]],
            attributes=dict(quantizer.attributes),
            domain=quantizer.domain,
            num_outputs=1,
        )
        again.outputs[0].name = f"{fed.name}{SUFFIX}"
        graph.insert_before(quantizer, again)
        for node, index in integer:
            node.replace_input_with(index, again.outputs[0])
    return fed
