"""A float graph with reductions beside the tensors to be observed: extremes, means and drawn values leave it, no more.

Intermediates stay inside the runtime, so memory is that of running the float graph on one micro-batch. Few operators
are added to each tensor: on large images a micro-batch is one row, and then each operator costs as much as its data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from qpipe.quant.calibration.picks import pick_values
from qpipe.quant.calibration.signs import never_negative
from qpipe.quant.edits import add_initializer
from qpipe.quant.graph import attr_int, constant, rank_of, values_of

LIMIT = "qpipe/limit"
"""Extra input: how many values to draw from each tensor."""
PHASE = "qpipe/phase"
"""Extra input: where drawing starts, so that strides do not always meet the same columns."""
DRAWN_PER_ROW = 2048
"""Values that enter the histogram from each tensor and row; extremes and means take all values."""
BLOCK = 16
"""Channels that onnxruntime keeps together on CPUs (NCHWc): pooling and channel-wise Conv read them where they lie."""
LARGE = 2**15
"""Values of a row from which it is cheaper to read them in blocks than to put them back in order first.

Measured on images of 224×224 and 32×32 pixels."""
Part = Literal["low", "high", "mean", "ends", "drawn", "shape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One observed tensor, what is known of it before, and the names of its reductions."""

    tensor: str
    axis: int | None
    parts: tuple[Part, ...]
    """`low` is missing for tensors that are never negative, whose lower end is 0; `shape` where `sizes` are known.
    `ends` are `high` and `mean` side by side, [N, 2·C]."""
    outputs: tuple[str, ...]
    sizes: tuple[int, ...] | None = None
    """Sizes of one row."""


def instrument(
    model: ir.Model, axes: Mapping[str, int], *, channels: bool = False, drawn_per_row: int = DRAWN_PER_ROW
) -> tuple[ir.Model, tuple[Probe, ...]]:
    """A copy of the graph that gives reductions instead of its outputs.

    `axes` maps each tensor to its channel axis (1, or −1 for the last). With `channels`, what is drawn from tensors
    with channels on axis 1 keeps them apart too: [N·C, n].
    """
    copy = model.clone()
    graph = copy.graph
    values = values_of(graph)
    opset = copy.opset_imports.get("", 13)
    builder = _Builder(graph, opset, channels=channels, drawn=drawn_per_row)
    made = {value: number for number, node in enumerate(graph) for value in node.outputs}
    # onnxruntime runs what ends a graph from its last node to its first, each with all that it needs: so every tensor
    # is reduced as soon as it is there, while it lies in a cache, and its memory is free again.
    order = sorted(axes, key=lambda tensor: made.get(values[tensor], -1), reverse=True)
    probed = {tensor: builder.probe(number, values[tensor], axes[tensor]) for number, tensor in enumerate(order)}
    probes = tuple(probed[tensor] for tensor in axes)
    outputs = [builder.named[name] for probe in probes for name in probe.outputs]
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    return copy, probes


class _Builder:
    def __init__(self, graph: ir.Graph, opset: int, *, channels: bool, drawn: int) -> None:
        self.graph, self.opset, self.channels, self.drawn = graph, opset, channels, drawn
        self.batch = _batch(graph)
        self.named: dict[str, ir.Value] = {}
        self.starts: dict[int, ir.Value] = {}
        self.limit = ir.Value(name=LIMIT, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
        self.phase = ir.Value(name=PHASE, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
        graph.inputs.extend([self.limit, self.phase])
        self.one = self.constant("one", [1])
        self.two = self.constant("two", [2])
        self.flat = self.constant("flat", [-1])
        self.end = self.constant("end", [2**62])
        self.zero = self.constant("zero", [0])

    def constant(self, name: str, numbers: list[int]) -> ir.Value:
        return add_initializer(self.graph, f"qpipe/{name}", np.array(numbers, np.int64), ir.DataType.INT64)

    def add(
        self,
        op: str,
        inputs: list[ir.Value],
        name: str = "",
        dtype: ir.DataType | None = None,
        **attributes: int | Sequence[int],
    ) -> ir.Value:
        # onnx-ir takes long to find out that a list is one of integers.
        typed = {key: one if isinstance(one, int) else ir.AttrInt64s(key, one) for key, one in attributes.items()}
        node = ir.node(op, inputs, attributes=typed, num_outputs=1)
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
        if axes is None:
            self.add(op, [value], name, ir.DataType.FLOAT, keepdims=0)
        elif self.opset >= 18:
            self.add(op, [value, self.constant(f"{name}/axes", axes)], name, ir.DataType.FLOAT, keepdims=0)
        else:
            self.add(op, [value], name, ir.DataType.FLOAT, keepdims=0, axes=axes)

    def probe(self, number: int, value: ir.Value, axis: int) -> Probe:
        sizes = self.row_sizes(value)
        floored = never_negative(value)
        axes, channel = reduced_axes(rank_of(value), axis)
        pooled = floored and not self.channels and sizes is not None and axis == 1 and _in_blocks(sizes)
        parts: list[Part] = ["ends"] if pooled else ["high", "mean"] if floored else ["low", "high", "mean"]
        parts += ["drawn"] if sizes is not None else ["drawn", "shape"]
        names: dict[Part, str] = {part: f"qpipe/{number}/{part}" for part in parts}
        if pooled and sizes is not None:
            self.pool(value, sizes, names)
        else:
            width = last_size(value) if axis == -1 else None
            source = value
            if width is not None:
                source = self.add("Reshape", [value, self.constant(f"{number}/rows", [-1, width])])
                axes, channel = [0], -1
            for op, part in (("ReduceMin", "low"), ("ReduceMax", "high"), ("ReduceMean", "mean")):
                if part in names:
                    self.reduce(op, source, axes, names[part])
            if self.channels and channel == 1:
                self.draw_channels(source, names["drawn"])
            else:
                self.draw(source, names["drawn"], width, None if sizes is None else math.prod(sizes))
        if sizes is None:
            self.add("Shape", [value], names["shape"], ir.DataType.INT64)
        return Probe(
            tensor=value.name or "", axis=channel, parts=tuple(parts), outputs=tuple(names.values()), sizes=sizes
        )

    def row_sizes(self, value: ir.Value) -> tuple[int, ...] | None:
        """Sizes of one row where all are known, and the tensor has as many rows as the batch; else None."""
        if value.shape is None or not len(value.shape) or self.batch is None or value.shape[0] != self.batch:
            return None
        sizes = tuple(dim for dim in value.shape[1:] if isinstance(dim, int) and dim > 0)
        return sizes if len(sizes) == len(value.shape) - 1 else None

    def pool(self, value: ir.Value, sizes: tuple[int, ...], names: Mapping[Part, str]) -> None:
        """The largest values, means and picked values of a tensor that is never negative, without a copy of it."""
        channels, height, width = sizes
        windows = _window(height), _window(width)
        means = self.add("AveragePool", [value], kernel_shape=windows, strides=windows)
        ends = [self.add("GlobalMaxPool", [value]), self.add("GlobalAveragePool", [means])]
        self.end_with(self.add("Concat", ends, axis=1), names["ends"])
        picked = []
        for number, pick in enumerate(pick_values(channels, height, width, self.drawn)):
            taps = add_initializer(self.graph, f"{names['drawn']}/{number}", pick.taps, ir.DataType.FLOAT)
            picked.append(
                self.add(
                    "Conv",
                    [value, taps],
                    group=channels,
                    kernel_shape=pick.kernel,
                    strides=pick.strides,
                    dilations=pick.dilations,
                )
            )
        self.end_with(self.add("Concat", picked, axis=1), names["drawn"])

    def end_with(self, value: ir.Value, name: str) -> None:
        """Values as [N, ·], by an operator that the runtime does not replace: it stays where it is in the order."""
        self.add("Flatten", [value], name, ir.DataType.FLOAT)

    def draw(self, value: ir.Value, name: str, width: int | None, size: int | None) -> None:
        """Every k-th value, k odd and just large enough to stay near the limit; `size`: values of a row, if known.

        Where channels are last, whole vectors are drawn, so that what depends on single channels can be computed later.
        """
        flat, limit = value, self.limit
        if width is None:
            flat = self.add("Reshape", [value, self.flat])
        if size is not None:
            self.known_stride(flat, size // (2 * self.drawn) * 2 + 1, name)
            return
        if width is not None:
            limit = self.add("Add", [self.add("Div", [self.limit, self.constant(f"{name}/width", [width])]), self.one])
        length = self.add("Slice", [self.add("Shape", [flat]), self.zero, self.one, self.zero])
        self.stride(flat, length, limit, self.zero, name)

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

    def known_stride(self, source: ir.Value, step: int, name: str) -> None:
        """Slice axis 0 in steps that are known; tensors of equal steps begin at the same place."""
        every = f"every/{step}"
        if step not in self.starts:
            self.starts[step] = self.add("Mod", [self.phase, self.constant(every, [step])])
        steps = self.graph.initializers[f"qpipe/{every}"]
        self.add("Slice", [source, self.starts[step], self.end, self.zero, steps], name, ir.DataType.FLOAT)


def _batch(graph: ir.Graph) -> ir.SymbolicDim | int | None:
    """The first size of the first input, or None where it has no name."""
    value = graph.inputs[0] if graph.inputs else None
    first = value.shape[0] if value is not None and value.shape is not None and len(value.shape) else None
    return None if isinstance(first, ir.SymbolicDim) and first.value is None else first


def _window(size: int) -> int:
    """The largest divisor up to the square root.

    A float32 sum over all pixels of 112×112 was off by 2e-5, one of windows and then of their means by 2e-7.
    """
    return max(window for window in range(1, math.isqrt(size) + 1) if size % window == 0)


def _in_blocks(sizes: tuple[int, ...]) -> bool:
    """Whether an image is one that the runtime keeps in blocks of channels, and large."""
    return len(sizes) == 3 and sizes[0] % BLOCK == 0 and math.prod(sizes) >= LARGE


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
    if axis == 1:
        return list(range(2, rank)), 1
    return list(range(rank - 1)), -1
