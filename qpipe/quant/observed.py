"""Which tensors one calibration pass observes: all that any known scheme may quantize, so that recipes share it."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from qpipe.quant.graph import name_of
from qpipe.quant.layout import lay_out
from qpipe.quant.operators import activation_axis
from qpipe.quant.schemes import LITERT, ORT_X86_VNNI, TENSORRT
from qpipe.records.scheme import Scheme

_WIDEST = (
    replace(ORT_X86_VNNI, activation_matmul=True, quantize_bias=False),
    replace(LITERT, quantize_bias=False),
    TENSORRT,
)


def observed_tensors(graph: ir.Graph, *schemes: Scheme) -> dict[str, int]:
    """Tensor name → channel axis, for everything that a known scheme (or one of `schemes`) may quantize."""
    values = {value.name: value for node in graph for value in node.outputs}
    values.update({value.name: value for value in graph.inputs})
    wanted = dict.fromkeys(name_of(value) for value in graph.inputs if value.dtype == ir.DataType.FLOAT)
    for scheme in (*_WIDEST, *schemes):
        layout = lay_out(graph, scheme)
        kept = {output for _, output in layout.passes}
        wanted.update(dict.fromkeys(pair.tensor for pair in layout.pairs if pair.tensor not in kept))
    return {name: activation_axis(values[name]) for name in wanted if name in values}
