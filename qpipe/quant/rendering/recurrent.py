"""LSTM with integer weights and activations quantized as they come: onnxruntime's DynamicQuantizeLSTM.

Source: onnxruntime docs/ContribOperators.md, com.microsoft.DynamicQuantizeLSTM (weights transposed: [D, input,
4·hidden] and [D, hidden, 4·hidden]; scales and zero points [D] or [D, 4·hidden]). None for GRU and RNN.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from qpipe.quant.edits import drop_unread, take_place
from qpipe.quant.graph import attr_int, constant, is_float, name_of
from qpipe.quant.operators import finite, infinite_weights
from qpipe.quant.options import QuantOptions
from qpipe.quant.rendering.matmul import MICROSOFT
from qpipe.quant.weights.int8 import QuantizedWeight, quantize_weight
from qpipe.quant.writer import Writer
from qpipe.records.quantization import NodeChoice, WeightSpec
from qpipe.records.scheme import Scheme

RECURRENT = ("LSTM", "GRU", "RNN")
_WEIGHTS = (1, 2)
"""Inputs W and R, [D, 4·hidden, input or hidden]."""
_ATTRIBUTES = ("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "input_forget")


def plan_recurrent(
    graph: ir.Graph, scheme: Scheme, options: QuantOptions
) -> tuple[tuple[NodeChoice, ...], tuple[WeightSpec, ...]]:
    """The recurrent nodes of the graph with what becomes of each, and specifications of the weights of LSTMs.

    Raises:
        QuantizationError: the weights of a node that would be quantized are not finite.
    """
    if "LSTM" not in scheme.dynamic_ops:
        return (), ()
    choices, specs = [], []
    for node in graph:
        if node.op_type not in RECURRENT or node.domain != "":
            continue
        reason = options.keep(node) or recurrent_refusal(node)
        if not reason and not finite(node):
            raise infinite_weights(node)
        choices.append(NodeChoice(node=node.name or "", op=node.op_type, quantized=not reason, reason=reason))
        if not reason:
            specs += [_spec(node, index, scheme, options) for index in _WEIGHTS]
    return tuple(choices), tuple(specs)


def recurrent_refusal(node: ir.Node) -> str:
    """Why a recurrent node has no integer kernel, or an empty string."""
    if node.op_type != "LSTM":
        return f"onnxruntime has no dynamically quantized kernel for {node.op_type}, only for LSTM"
    if attr_int(node, "layout", 0):
        return "its layout is batch first, which the kernel does not take"
    arrays = [constant(node.inputs[index]) for index in _WEIGHTS]
    if any(array is None for array in arrays):
        return "its weights are not constant"
    if not is_float(node.inputs[0]) or any(array is not None and array.dtype != np.float32 for array in arrays):
        return "it does not compute in float32"
    return ""


def _spec(node: ir.Node, index: int, scheme: Scheme, options: QuantOptions) -> WeightSpec:
    value = node.inputs[index]
    assert value is not None
    return WeightSpec(
        tensor=name_of(value),
        dtype=scheme.weight,
        bits=scheme.weight_bits,
        symmetric=True,
        axis=1 if scheme.per_channel else None,
        method=options.weights,
        nodes=(node.name or "",),
    )


def is_recurrent(spec: WeightSpec, nodes: dict[str | None, ir.Node]) -> bool:
    """Whether a weight specification is about an LSTM."""
    return all(name in nodes and nodes[name].op_type == "LSTM" for name in spec.nodes)


def render_recurrent(graph: ir.Graph, specs: tuple[WeightSpec, ...]) -> None:
    """Replace the LSTMs that these specifications (two for each) are about; in place."""
    nodes = {node.name: node for node in graph}
    pairs: dict[str, list[WeightSpec]] = {}
    for spec in specs:
        if is_recurrent(spec, nodes):
            pairs.setdefault(spec.nodes[0], []).append(spec)
    writer = Writer(graph)
    for name, two in pairs.items():
        _replace(writer, nodes[name], two)


def _replace(writer: Writer, node: ir.Node, specs: list[WeightSpec]) -> None:
    inputs = list(node.inputs) + [None] * (8 - len(node.inputs))
    old = [inputs[index] for index in _WEIGHTS]
    parts: list[ir.Value | None] = []
    for index, spec, letter in zip(_WEIGHTS, specs, "WR", strict=True):
        found = directions(np.asarray(constant(inputs[index]), np.float32), spec)
        integers = np.ascontiguousarray(found.values.transpose(0, 2, 1))
        zero = np.zeros(found.scale.shape, np.int8)
        base = f"{node.name}/{letter}"
        inputs[index] = writer.initializer(f"{base}_quantized", integers)
        parts.append(writer.initializer(f"{base}_scale", found.scale))
        parts.append(writer.initializer(f"{base}_zero_point", zero))
    kept = {name: node.attributes[name] for name in _ATTRIBUTES if name in node.attributes}
    fused = ir.Node(
        MICROSOFT,
        "DynamicQuantizeLSTM",
        [*inputs, *parts],
        kept.values(),
        num_outputs=len(node.outputs),
        name=node.name,
    )
    writer.graph.insert_before(node, fused)
    for before, after in zip(node.outputs, fused.outputs, strict=True):
        take_place(before, after)
    writer.graph.remove(node, safe=True)
    for value in old:
        if value is not None:
            drop_unread(writer.graph, value)


def directions(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]], spec: WeightSpec) -> QuantizedWeight:
    """Integers [D, 4·hidden, …] of a weight with scales [D, 4·hidden], or [D] per tensor: each direction by itself."""
    one = replace(spec, axis=None if spec.axis is None else 0)
    found = [quantize_weight(part, one) for part in array]
    return QuantizedWeight(
        values=np.stack([part.values for part in found]), scale=np.stack([part.scale for part in found])
    )
