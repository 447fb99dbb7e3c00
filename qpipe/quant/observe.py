"""A float graph with reductions beside the tensors to be observed: extremes, means and drawn values leave it, no more.

Intermediates stay inside the runtime, so memory is that of running the float graph on one micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qpipe.quant.graph import add_initializer, attr_int, constant, rank_of

LIMIT = "qpipe/limit"
"""Extra input: how many values to draw from each tensor."""
PHASE = "qpipe/phase"
"""Extra input: where drawing starts, so that strides do not always meet the same columns."""
PARTS = ("low", "high", "mean", "drawn", "shape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One observed tensor and the names of its reductions, in the order of `PARTS`."""

    tensor: str
    axis: int | None
    outputs: tuple[str, ...]


def instrument(
    model: ir.Model, axes: Mapping[str, int], *, channels: bool = False
) -> tuple[ir.Model, tuple[Probe, ...]]:
    """A copy of the graph that gives reductions instead of its outputs.

    `axes` maps each tensor to its channel axis (1, or −1 for the last). With `channels`, what is drawn from tensors
    with channels on axis 1 keeps them apart too: [N·C, n].
    """
    copy = model.clone()
    graph = copy.graph
    values = {value.name: value for node in graph for value in node.outputs}
    values.update({value.name: value for value in graph.inputs})
    opset = copy.opset_imports.get("", 13)
    builder = _Builder(graph, opset, channels=channels)
    probes = tuple(builder.probe(number, values[tensor], axis) for number, (tensor, axis) in enumerate(axes.items()))
    outputs = [builder.named[name] for probe in probes for name in probe.outputs]
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    return copy, probes


class _Builder:
    def __init__(self, graph: ir.Graph, opset: int, *, channels: bool) -> None:
        self.graph, self.opset, self.channels = graph, opset, channels
        self.named: dict[str, ir.Value] = {}
        self.limit = ir.Value(name=LIMIT, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
        self.phase = ir.Value(name=PHASE, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
        graph.inputs.extend([self.limit, self.phase])
        self.one = self.constant("one", [1])
        self.two = self.constant("two", [2])
        self.flat = self.constant("flat", [-1])
        self.end = self.constant("end", [2**62])
        self.zero = self.constant("zero", [0])

    def constant(self, name: str, numbers: list[int]) -> ir.Value:
        return add_initializer(self.graph, f"qpipe/{name}", np.array(numbers, np.int64))

    def add(
        self, op: str, inputs: list[ir.Value], name: str = "", dtype: ir.DataType | None = None, **ints: int
    ) -> ir.Value:
        node = ir.node(op, inputs, attributes=ints, num_outputs=1)
        self.graph.append(node)
        value = node.outputs[0]
        if name:
            value.name = name
            self.named[name] = value
        if dtype is not None:
            value.type = ir.TensorType(dtype)
        return value

    def reduce(self, op: str, value: ir.Value, axes: list[int] | None, name: str) -> None:
        """Reduce over axes (None: over all); from opset 18 axes are an input."""
        inputs, attributes = [value], [ir.AttrInt64("keepdims", 0)]
        if axes is not None and self.opset >= 18:
            inputs.append(self.constant(f"{name}/axes", axes))
        elif axes is not None:
            attributes.append(ir.AttrInt64s("axes", axes))
        node = ir.node(op, inputs, num_outputs=1)
        for attribute in attributes:
            node.attributes.add(attribute)
        self.graph.append(node)
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        self.named[name] = node.outputs[0]

    def probe(self, number: int, value: ir.Value, axis: int) -> Probe:
        names = tuple(f"qpipe/{number}/{part}" for part in PARTS)
        axes, channel = reduced_axes(rank_of(value), axis)
        width = last_size(value) if axis == -1 else None
        source = value
        if width is not None:
            source = self.add("Reshape", [value, self.constant(f"{names[3]}/rows", [-1, width])])
            axes, channel = [0], -1
        for op, name in zip(("ReduceMin", "ReduceMax", "ReduceMean"), names, strict=False):
            self.reduce(op, source, axes, name)
        if self.channels and channel == 1:
            self.draw_channels(source, names[3])
        else:
            self.draw(source, names[3], width)
        self.add("Shape", [value], names[4], ir.DataType.INT64)
        return Probe(tensor=value.name or "", axis=channel, outputs=names)

    def draw(self, value: ir.Value, name: str, width: int | None) -> None:
        """Every k-th value, k odd and just large enough to stay near the limit.

        Where channels are last, whole vectors are drawn, so that what depends on single channels can be computed later.
        """
        flat, limit = value, self.limit
        if width is None:
            flat = self.add("Reshape", [value, self.flat])
        else:
            limit = self.add("Add", [self.add("Div", [self.limit, self.constant(f"{name}/width", [width])]), self.one])
        size = self.add("Slice", [self.add("Shape", [flat]), self.zero, self.one, self.zero])
        self.stride(flat, size, limit, self.zero, name)

    def draw_channels(self, value: ir.Value, name: str) -> None:
        """Every k-th place of [N·C, …], the same for all channels, so that about the limit of values is left."""
        flat = self.add("Flatten", [value], axis=2)
        shape = self.add("Shape", [flat])
        rows = self.add("Max", [self.add("Slice", [shape, self.zero, self.one, self.zero]), self.one])
        size = self.add("Slice", [shape, self.one, self.two, self.zero])
        limit = self.add("Add", [self.add("Div", [self.limit, rows]), self.one])
        self.stride(flat, size, limit, self.one, name)

    def stride(self, source: ir.Value, size: ir.Value, limit: ir.Value, axis: ir.Value, name: str) -> None:
        """Slice an axis of that size so that about `limit` places are left."""
        half = self.add("Div", [size, self.add("Mul", [limit, self.two])])
        step = self.add("Add", [self.add("Mul", [half, self.two]), self.one])
        start = self.add("Mod", [self.phase, step])
        self.add("Slice", [source, start, self.end, axis, step], name, ir.DataType.FLOAT)


def last_size(value: ir.Value) -> int | None:
    """Size of the last axis, from the shape or from the weights that read it; None where it is free."""
    rank = rank_of(value)
    size = value.shape[-1] if value.shape is not None and rank is not None and rank > 1 else None
    if isinstance(size, int):
        return size
    for use in value.uses():
        weight = constant(use.node.inputs[1]) if use.idx == 0 and use.node.op_type in {"MatMul", "Gemm"} else None
        if weight is not None and weight.ndim == 2 and not attr_int(use.node, "transA", 0):
            return int(weight.shape[1 if attr_int(use.node, "transB", 0) else 0])
    return None


def reduced_axes(rank: int | None, axis: int) -> tuple[list[int] | None, int | None]:
    """Axes to reduce inside the graph, and the channel axis of what comes out (None: one number per tensor).

    Channels on axis 1 leave [N, C], reduced over the batch outside: runtimes are faster on trailing axes.
    """
    if rank is None or rank < 2:
        return None, None
    if axis == 1 and rank > 2:
        return list(range(2, rank)), 1
    return list(range(rank - 1)), -1
