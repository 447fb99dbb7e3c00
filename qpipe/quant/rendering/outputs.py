"""A Q/DQ graph whose outputs stay float: what the last quantization costs is the difference."""

from __future__ import annotations

from pathlib import Path

import onnx


def with_float_outputs(path: Path) -> onnx.ModelProto | None:
    """The graph without the Q/DQ pairs right before its outputs; None where there are none.

    The names of outputs stay.
    """
    model = onnx.load(path)
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in node.input}
    pairs = []
    for output in graph.output:
        dequantize = made.get(output.name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear" or output.name in read:
            continue
        quantize = made.get(dequantize.input[0])
        if quantize is not None and quantize.op_type == "QuantizeLinear":
            pairs.append((dequantize, quantize))
    if not pairs:
        return None
    for dequantize, quantize in pairs:
        float_name, name = quantize.input[0], dequantize.output[0]
        graph.node.remove(dequantize)
        graph.node.append(onnx.helper.make_node("Identity", [float_name], [name], name=f"{name}_float"))
    return model
