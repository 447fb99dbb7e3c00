"""Dynamic quantization by our own placement: each activation is quantized once, whoever reads it; weights per channel.

DynamicQuantizeLinear → MatMulIntegerToFloat, bias included; LSTM → DynamicQuantizeLSTM (`recurrent`).
Source: ONNX operator DynamicQuantizeLinear; onnxruntime docs/ContribOperators.md, com.microsoft.MatMulIntegerToFloat.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from qpipe.errors import QuantizationError
from qpipe.quant.edits import drop_unread, insert_behind, take_place
from qpipe.quant.graph import attr_float, attr_int, constant, input_at, is_float, name_of, only_consumer
from qpipe.quant.numbers import F32
from qpipe.quant.operators import WEIGHTED, finite, infinite_weights, is_transposed
from qpipe.quant.options import QuantOptions
from qpipe.quant.rendering.matmul import MICROSOFT
from qpipe.quant.rendering.recurrent import is_recurrent, plan_recurrent, render_recurrent
from qpipe.quant.rendering.render import forget_shapes
from qpipe.quant.rendering.tables import is_table, plan_tables, render_tables
from qpipe.quant.weights.int8 import quantize_weight
from qpipe.quant.writer import Writer
from qpipe.records.quantization import NodeChoice, QuantPlan, WeightSpec
from qpipe.records.scheme import Scheme

_BY_BACKENDS = "Conv"
"""What only toolchains of their own quantize so (LiteRT's): the graph has it in float."""


def plan_dynamic(model: ir.Model, scheme: Scheme, options: QuantOptions | None = None) -> QuantPlan:
    """Choose the weighted operators and LSTMs whose activations are quantized as they come.

    Raises:
        QuantizationError: the scheme has no such kernels, nothing in the graph fits them, or weights are not finite.
    """
    options = options or QuantOptions()
    if not scheme.dynamic_ops:
        raise QuantizationError(
            f"scheme {scheme.name!r} has no dynamically quantized kernels", hint="use recipe 'int8'"
        )
    nodes, weights = [], []
    for node in model.graph:
        kept = options.keep(node)  # also of operators that the graph has in float: toolchains take them all the same
        if node.op_type not in WEIGHTED or not (kept or node.op_type in scheme.dynamic_ops):
            continue
        reason = kept or _refusal(node)
        if not reason and not finite(node):
            raise infinite_weights(node)
        nodes.append(NodeChoice(node=node.name or "", op=node.op_type, quantized=not reason, reason=reason))
        if not reason and node.inputs[1] is not None:
            axis = 0 if is_transposed(node) or node.op_type == _BY_BACKENDS else 1
            weights.append(
                WeightSpec(
                    tensor=name_of(node.inputs[1]),
                    dtype=scheme.weight,
                    bits=scheme.weight_bits,
                    symmetric=True,
                    axis=axis if scheme.per_channel else None,
                    method=options.weights,
                    nodes=(node.name or "",),
                )
            )
    choices, recurrent = plan_recurrent(model.graph, scheme, options)
    nodes += choices
    if not weights and not recurrent:
        reasons = [f"; {one.node!r} ({one.op}): {one.reason}" for one in nodes[:3]]
        instead = (
            "try recipe 'int8'" if any(node.op_type in scheme.ops for node in model.graph) else "keep the float model"
        )
        raise QuantizationError(
            f"no node of this graph takes its weights alone as integers{''.join(reasons)}",
            hint=f"those that do: {', '.join(scheme.dynamic_ops)} with constant weights; {instead}",
        )
    specs = (*weights, *recurrent, *plan_tables(model.graph, scheme, options, weights))
    return QuantPlan(scheme=scheme, mode="dynamic", activations=(), weights=specs, nodes=tuple(nodes))


def _refusal(node: ir.Node) -> str:
    data, weight = node.inputs[0], node.inputs[1]
    array = constant(weight)
    if data is None or not is_float(data) or data.is_initializer() or array is None:
        return "its weights are not constant" if array is None else "its data input is not a float activation"
    if array.dtype != np.float32 or (array.ndim != 2 and node.op_type != _BY_BACKENDS):
        return "its weights are not a float32 matrix"
    if node.op_type == "Gemm" and (attr_int(node, "transA", 0) or attr_float(node, "alpha", 1.0) != 1.0):
        return "its data input is transposed or scaled"
    return _bias_refusal(node)


def _bias_refusal(node: ir.Node) -> str:
    if node.op_type != "Gemm" or input_at(node, 2) is None:
        return ""
    bias = constant(node.inputs[2])
    if bias is None or attr_float(node, "beta", 1.0) != 1.0 or (bias.ndim == 2 and bias.shape[0] != 1):
        return "its bias is not one constant vector"
    return ""


def render_dynamic(model: ir.Model, plan: QuantPlan) -> ir.Model:
    """A copy of the graph with the plan's MatMuls, Gemms and LSTMs as dynamically quantized kernels.

    Raises:
        QuantizationError: the plan names a node that the graph does not have.
    """
    copy = model.clone()
    graph, writer = copy.graph, Writer(copy.graph)
    nodes = {node.name: node for node in graph}
    quantizers: dict[str, ir.Node] = {}
    written: dict[tuple[str, bool, WeightSpec], list[ir.Value]] = {}
    for spec in plan.weights:
        if is_table(spec, nodes) or is_recurrent(spec, nodes):
            continue
        for name in spec.nodes:
            if name not in nodes:
                raise QuantizationError(f"the plan quantizes node {name!r}, which the graph does not have")
            if nodes[name].op_type != _BY_BACKENDS:
                _replace(writer, nodes[name], spec, quantizers, written)
    render_recurrent(graph, plan.weights)
    render_tables(graph, plan)
    copy.opset_imports.setdefault(MICROSOFT, 1)
    forget_shapes(graph)
    return copy


def _weight(writer: Writer, node: ir.Node, spec: WeightSpec, *, transposed: bool) -> list[ir.Value]:
    """Integers [K, N], scales and zero points of a node's weight, as new initializers."""
    found = quantize_weight(np.asarray(constant(node.inputs[1]), np.float32), spec)
    integers = np.ascontiguousarray(found.values.T if transposed else found.values)
    parts = {"quantized": integers, "scale": found.scale, "zero_point": np.zeros(found.scale.shape, np.int8)}
    return [writer.initializer(f"{node.name}/weight_{part}", array) for part, array in parts.items()]


def _replace(
    writer: Writer,
    node: ir.Node,
    spec: WeightSpec,
    quantizers: dict[str, ir.Node],
    written: dict[tuple[str, bool, WeightSpec], list[ir.Value]],
) -> None:
    """`written` holds the weights that are in the graph already: layers that share one go on sharing it."""
    graph, weight = writer.graph, node.inputs[1]
    assert weight is not None
    transposed = is_transposed(node)
    key = (spec.tensor, transposed, replace(spec, nodes=()))
    if key not in written:
        written[key] = _weight(writer, node, spec, transposed=transposed)
    weights = written[key]
    quantizer = _quantizer(writer, node, quantizers)
    bias, last = _bias(graph, node, _length(weights[0], 1))
    inputs = [value for pair in zip(quantizer.outputs, weights, strict=True) for value in pair]
    if bias is not None:
        inputs.append(writer.initializer(f"{node.name}/bias", bias))
    fused = ir.node("MatMulIntegerToFloat", inputs, domain=MICROSOFT, name=node.name)
    graph.insert_before(last, fused)
    take_place(last.outputs[0], fused.outputs[0])
    graph.remove([last, node] if last is not node else node, safe=True)
    drop_unread(graph, weight)


def _length(value: ir.Value, axis: int) -> int:
    array = constant(value)
    assert array is not None
    return int(array.shape[axis])


def _quantizer(writer: Writer, node: ir.Node, quantizers: dict[str, ir.Node]) -> ir.Node:
    data = node.inputs[0]
    assert data is not None
    name = name_of(data)
    if name not in quantizers:
        quantizer = ir.node("DynamicQuantizeLinear", [data], num_outputs=3, name=f"{name}/quantize")
        for value, suffix in zip(quantizer.outputs, ("quantized", "scale", "zero_point"), strict=True):
            value.name = writer.names.fresh(f"{name}_{suffix}")
        insert_behind(writer.graph, data, [quantizer])
        quantizers[name] = quantizer
    return quantizers[name]


def _bias(graph: ir.Graph, node: ir.Node, channels: int) -> tuple[F32 | None, ir.Node]:
    """The bias that the kernel takes, and the last node that it replaces."""
    if node.op_type == "Gemm":
        own = constant(input_at(node, 2))
        if own is None:
            return None, node
        return np.broadcast_to(np.asarray(own, np.float32).reshape(-1), (channels,)).copy(), node
    add = only_consumer(node.outputs[0], graph)
    if add is None or add.op_type != "Add":
        return None, node
    array = constant(add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0])
    if array is None or array.shape != (channels,):
        return None, node
    return np.asarray(array, np.float32), add
