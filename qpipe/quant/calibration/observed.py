"""Which tensors a calibration pass observes: those that the scheme may quantize, whatever options a recipe has."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from qpipe.quant.graph import name_of, values_of
from qpipe.quant.layout import lay_out
from qpipe.quant.operators import activation_axis
from qpipe.records.scheme import Scheme


def observed_tensors(graph: ir.Graph, *schemes: Scheme) -> dict[str, int]:
    """Tensor name → channel axis, for everything that one of the schemes may quantize, and for float inputs.

    Recipes whose observed tensors are the same share one pass.
    """
    values = values_of(graph)
    wanted = dict.fromkeys(name_of(value) for value in graph.inputs if value.dtype == ir.DataType.FLOAT)
    # Whether a small image's first convolution is quantized is known once its pixels have been seen.
    convolves = any(node.op_type == "Conv" for node in graph)
    grids = (replace(scheme, direct_channels=0) for scheme in schemes if convolves and scheme.grid_below)
    for scheme in (*schemes, *grids):
        layout = lay_out(graph, scheme)
        kept = {output for _, output in layout.passes}
        wanted.update(dict.fromkeys(pair.tensor for pair in layout.pairs if pair.tensor not in kept))
        # What stands before an absorbed Relu or Clip is never quantized by itself, and is often the largest tensor.
        computing = {choice.node for choice in layout.nodes if choice.quantized and not choice.absorbed_into}
        wanted.update(dict.fromkeys(_beside(graph, computing)))
    return {name: activation_axis(values[name]) for name in sorted(wanted) if name in values}


def _beside(graph: ir.Graph, chosen: set[str]) -> list[str]:
    """Data inputs of quantized nodes: a recipe that leaves some node in float may move a pair there."""
    names = []
    for node in graph:
        if node.name in chosen and node.inputs and node.inputs[0] is not None and not node.inputs[0].is_initializer():
            names.append(name_of(node.inputs[0]))
    return names
