"""A quantization plan as a Q/DQ graph: the form that ONNX Runtime and TensorRT read their integer kernels from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.errors import QuantizationError
from qpipe.quant.edits import Names, add_initializer, drop_unread, insert_behind
from qpipe.quant.graph import constant, converted, input_at, name_of, values_of
from qpipe.quant.numbers import F32, onnx_type, quantize
from qpipe.quant.rendering.matmul import MICROSOFT, fuse_matmuls
from qpipe.quant.rendering.tables import is_table, render_tables
from qpipe.quant.weights.int4 import reduced_axis
from qpipe.quant.weights.int8 import QuantizedWeight, bias_floor, quantize_weight
from qpipe.records.quantization import ActivationSpec, QuantPlan, WeightSpec

_OPSETS = {"int16": 21, "uint16": 21, "int4": 21, "uint4": 21, "float8e4m3fn": 19}
_IR_VERSIONS = {"int4": 10, "uint4": 10, "float8e4m3fn": 9}


def render(model: ir.Model, plan: QuantPlan) -> ir.Model:
    """The float graph with the plan's Q/DQ pairs, integer weights and (where the scheme has them) integer biases.

    A Relu or Clip that the plan absorbs is taken out: the quantizer before it saturates at the same values.

    Raises:
        QuantizationError: the plan names a tensor, node or channel axis that the graph does not have.
    """
    return render_into(model.clone(), plan)


def render_into(copy: ir.Model, plan: QuantPlan) -> ir.Model:
    """`render`, into the graph that is given: for whoever has made a copy before.

    Raises:
        QuantizationError: as `render`.
    """
    types = {plan.scheme.activation, plan.scheme.weight, *(spec.dtype for spec in plan.weights)}
    opset = max((_OPSETS.get(dtype, 13) for dtype in types), default=13)
    if copy.opset_imports.get("", 13) < opset:
        copy = converted(copy, opset)
    copy.ir_version = max(copy.ir_version, *(_IR_VERSIONS.get(dtype, 8) for dtype in types))
    _Renderer(copy.graph, plan).run()
    render_tables(copy.graph, plan)
    eight_bits = plan.scheme.activation in {"uint8", "int8"}
    if "MatMul" in plan.scheme.fused_ops and eight_bits and fuse_matmuls(copy.graph):
        copy.opset_imports.setdefault(MICROSOFT, 1)
    forget_shapes(copy.graph)
    return copy


def forget_shapes(graph: ir.Graph) -> None:
    """Drop the shapes of intermediates, which are not true for all batches.

    Without them onnxruntime also leaves Add + LayerNormalization alone, which run faster than the
    SkipLayerNormalization that it would make of them (65 µs against 30 µs each on MiniLM-L6, one row of 16 tokens).
    """
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
                value.type = None


def weight_floor(node: ir.Node, spec: WeightSpec, plan: QuantPlan) -> NDArray[np.float64] | None:
    """Smallest weight scales that keep this node's int32 bias in range, or None where the bias stays float."""
    pair, bias = _data_parameters(node, plan), constant(input_at(node, 2))
    if bias is None or pair is None or not plan.scheme.quantize_bias:
        return None
    floor = bias_floor(np.asarray(bias, np.float32).reshape(-1), pair.scale)
    return floor if spec.axis is not None else floor.max(keepdims=True)


def _data_parameters(node: ir.Node, plan: QuantPlan) -> ActivationSpec | None:
    """The parameters of a weighted operator's data input, or None where it stays float."""
    data = node.inputs[0]
    return None if data is None else plan.activation(name_of(data))


def quantized_weight(nodes: Iterable[ir.Node], spec: WeightSpec, plan: QuantPlan) -> QuantizedWeight:
    """The integers of a weight as rendered: scales respect the biases of every node that reads it."""
    readers = list(nodes)
    array = constant(readers[0].inputs[1])
    assert array is not None
    floors = [floor for node in readers if (floor := weight_floor(node, spec, plan)) is not None]
    floor = np.max(np.stack([np.broadcast_to(one, floors[0].shape) for one in floors]), axis=0) if floors else None
    return quantize_weight(np.asarray(array, np.float32), spec, floor)


class _Renderer:
    def __init__(self, graph: ir.Graph, plan: QuantPlan) -> None:
        self.graph, self.plan = graph, plan
        self.values = {**values_of(graph), **graph.initializers}
        self.nodes = {node.name: node for node in graph}
        self.parameters: dict[str, tuple[ir.Value, ir.Value]] = {}
        self.names = Names(graph)

    def run(self) -> None:
        """Weights first, while their nodes still read the plan's tensors; then activations; then absorbed nodes."""
        for spec in self.plan.weights:
            if not is_table(spec, self.nodes):
                self.weight(spec)
        absorbed = {
            self.nodes[choice.node].outputs[0].name: choice.node
            for choice in self.plan.nodes
            if choice.absorbed_into and choice.node in self.nodes
        }
        for pair in self.plan.activations:
            if pair.tensor not in self.values:
                raise QuantizationError(f"the plan quantizes tensor {pair.tensor!r}, which the graph does not have")
            value = self.values[pair.tensor]
            if value.is_initializer():
                self.constant(pair, value)
            elif pair.consumers:
                self.branch(pair, value)
            else:
                self.everywhere(pair, value, absorbed.get(pair.tensor))

    def scale_of(self, pair: ActivationSpec) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point; tensors that share parameters share these too, so that runtimes see they are equal."""
        key = pair.shares or pair.tensor
        if key not in self.parameters:
            dtype = onnx_type(pair.dtype)
            zero = np.array(pair.zero_point, dtype.numpy())
            self.parameters[key] = (
                self.add(f"{key}_scale", np.array(pair.scale, np.float32)),
                self.add(f"{key}_zero_point", zero, dtype),
            )
        return self.parameters[key]

    def add(self, name: str, array: NDArray[np.generic], dtype: ir.DataType | None = None) -> ir.Value:
        return add_initializer(self.graph, self.names.fresh(name), array, dtype)

    def pair(self, spec: ActivationSpec, value: ir.Value) -> tuple[ir.Node, ir.Node]:
        scale, zero = self.scale_of(spec)
        quantizer = ir.node("QuantizeLinear", [value, scale, zero], name=f"{spec.tensor}/quantize")
        quantizer.outputs[0].name = self.names.fresh(f"{spec.tensor}_quantized")
        back = ir.node("DequantizeLinear", [quantizer.outputs[0], scale, zero], name=f"{spec.tensor}/dequantize")
        back.outputs[0].name = self.names.fresh(f"{spec.tensor}_dequantized")
        return quantizer, back

    def branch(self, spec: ActivationSpec, value: ir.Value) -> None:
        """Only the named nodes read the quantized value."""
        uses = [use for use in value.uses() if use.node.name in spec.consumers and self.is_data(use.node, use.idx)]
        quantizer, back = self.pair(spec, value)
        insert_behind(self.graph, value, [quantizer, back])
        for use in uses:
            use.node.replace_input_with(use.idx, back.outputs[0])

    @staticmethod
    def is_data(node: ir.Node, index: int) -> bool:
        return index == 0 or node.op_type in {"MatMul", "Add", "Mul", "Sub", "Div", "Concat"}

    def everywhere(self, spec: ActivationSpec, value: ir.Value, absorbed: str | None) -> None:
        """Every reader sees the quantized value; an absorbed Relu or Clip goes, and its input is quantized instead."""
        source = value
        if absorbed is not None:
            node = self.nodes[absorbed]
            assert node.inputs[0] is not None
            source = node.inputs[0]
        quantizer, back = self.pair(spec, source)
        was_output = value.is_graph_output()
        uses = [use for use in value.uses() if use.node is not quantizer]
        for use in uses:
            use.node.replace_input_with(use.idx, back.outputs[0])
        insert_behind(self.graph, source, [quantizer, back])
        if was_output:
            outputs = self.graph.outputs
            for index, output in enumerate(outputs):
                if output is value:
                    outputs[index] = back.outputs[0]
        if absorbed is not None:
            self.graph.remove(self.nodes[absorbed], safe=True)
        if was_output:
            name, shape, dtype = value.name, value.shape, value.dtype
            value.name = self.names.fresh(f"{name}_float")
            back.outputs[0].name, back.outputs[0].shape = name, shape
            back.outputs[0].dtype = dtype or ir.DataType.FLOAT

    def constant(self, spec: ActivationSpec, value: ir.Value) -> None:
        """A constant operand of an elementwise operator: integers in the file, dequantized for its integer readers."""
        array = np.asarray(constant(value), np.float64)
        scale, zero = self.scale_of(spec)
        integers = quantize(array, np.asarray(spec.scale, np.float64), spec.zero_point, spec.dtype)
        dtype = onnx_type(spec.dtype)
        stored = self.add(f"{spec.tensor}_quantized", integers.astype(dtype.numpy()), dtype)
        back = ir.node("DequantizeLinear", [stored, scale, zero], name=f"{spec.tensor}/dequantize")
        back.outputs[0].name = self.names.fresh(f"{spec.tensor}_dequantized")
        readers = [use for use in value.uses() if not spec.consumers or use.node.name in spec.consumers]
        self.graph.insert_before(self.graph[0], back)
        for use in readers:
            use.node.replace_input_with(use.idx, back.outputs[0])
        drop_unread(self.graph, value)

    def weight(self, spec: WeightSpec) -> None:
        nodes = [self.nodes[name] for name in spec.nodes if name in self.nodes]
        if not nodes or nodes[0].inputs[1] is None or name_of(nodes[0].inputs[1]) != spec.tensor:
            raise QuantizationError(f"the plan quantizes weight {spec.tensor!r}, which no node of the graph reads so")
        value = nodes[0].inputs[1]
        array = constant(value)
        if array is None or (spec.axis is not None and not 0 <= spec.axis < array.ndim):
            raise QuantizationError(
                f"node {nodes[0].name!r}: weight {spec.tensor!r} has no channel axis {spec.axis}",
                hint="quantize it per tensor",
            )
        found = quantized_weight(nodes, spec, self.plan)
        dtype = onnx_type(spec.dtype)
        stored = self.add(f"{spec.tensor}_quantized", found.values.astype(dtype.numpy()), dtype)
        scale = self.add(f"{spec.tensor}_scale", found.scale)
        if spec.block_size is None:
            zero = self.add(f"{spec.tensor}_zero_point", np.zeros(found.scale.shape, dtype.numpy()), dtype)
            back = self.dequantizer(f"{spec.tensor}/dequantize", [stored, scale, zero], spec.axis)
        else:
            back = self.dequantizer(f"{spec.tensor}/dequantize", [stored, scale], reduced_axis(spec.axis))
            back.attributes["block_size"] = ir.AttrInt64("block_size", spec.block_size)
        self.graph.insert_before(nodes[0], back)
        for node in nodes:
            node.replace_input_with(1, back.outputs[0])
        drop_unread(self.graph, value)
        if not self.plan.scheme.quantize_bias or spec.block_size is not None:
            return
        for node in nodes:
            pair = _data_parameters(node, self.plan)
            if pair is not None and input_at(node, 2) is not None:
                self.bias(node, pair.scale, found.scale)

    def bias(self, node: ir.Node, input_scale: float, weight_scale: F32) -> None:
        """int32 bias with scale = input scale × weight scale. Source: arXiv:1712.05877, section 2.4."""
        value = node.inputs[2]
        assert value is not None
        array = np.asarray(constant(value), np.float64).reshape(-1)
        scale = (np.float32(input_scale) * weight_scale).astype(np.float32)
        if scale.ndim and array.size == 1:
            array = np.broadcast_to(array, scale.shape)
        integers = quantize(array, scale.astype(np.float64), 0, "int32").astype(np.int32)
        base = f"{node.name}/bias"
        stored, scales = self.add(f"{base}_quantized", integers), self.add(f"{base}_scale", scale)
        zero = self.add(f"{base}_zero_point", np.zeros(scale.shape, np.int32))
        back = self.dequantizer(f"{base}/dequantize", [stored, scales, zero], 0 if scale.ndim else None)
        self.graph.insert_before(node, back)
        node.replace_input_with(2, back.outputs[0])
        drop_unread(self.graph, value)

    def dequantizer(self, name: str, inputs: list[ir.Value], axis: int | None) -> ir.Node:
        attributes = {} if axis is None else {"axis": axis}
        node = ir.node("DequantizeLinear", inputs, attributes=attributes, name=self.names.fresh(name))
        node.outputs[0].name = self.names.fresh(name.replace("/dequantize", "_dequantized"))
        return node
