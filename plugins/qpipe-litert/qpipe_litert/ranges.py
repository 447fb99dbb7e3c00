"""Ranges of the plan, carried over to the `.tflite` tensors that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from qpipe.records.quantization import QuantPlan
from qpipe_litert.flatbuffer import KEEPS_VALUES, FlatModel

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedRanges:
    """Ranges by `.tflite` tensor index, and float tensors for which the plan has none."""

    ranges: Mapping[int, Range]
    missing: tuple[int, ...]


def carry_ranges(
    plan: QuantPlan, graph: onnx.ModelProto, flat: FlatModel, matched: Mapping[int, tuple[str, ...]]
) -> CarriedRanges:
    """The plan's ranges for every float activation of the file.

    A tensor that the plan does not name takes the range of the tensor before its Relu or Clip, cut as that operator
    cuts; then that of its neighbour across operators that keep values.
    """
    known = plan_ranges(plan, graph)
    activations = [t.index for t in flat.tensors if t.dtype == "float32" and not t.constant and _used(flat, t.index)]
    ranges = {index: r for index in activations if (r := _first(known, matched.get(index, ()))) is not None}
    _spread(flat, ranges, set(activations))
    return CarriedRanges(ranges=ranges, missing=tuple(index for index in activations if index not in ranges))


def plan_ranges(plan: QuantPlan, graph: onnx.ModelProto) -> dict[str, Range]:
    """Ranges by ONNX tensor, with those of Relu and Clip outputs derived where only their inputs have one."""
    known = {spec.tensor: (spec.low, spec.high) for spec in plan.activations}
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        if not node.output or node.output[0] in known or not node.input or node.input[0] not in known:
            continue
        low, high = known[node.input[0]]
        if node.op_type == "Relu":
            known[node.output[0]] = (0.0, max(high, 0.0))
        elif node.op_type == "Clip":
            floor, ceiling = (_constant(constants, node, at) for at in (1, 2))
            low, high = (
                max(low, floor if floor is not None else low),
                min(high, ceiling if ceiling is not None else high),
            )
            known[node.output[0]] = (min(low, 0.0), max(high, 0.0))
    return known


def _constant(constants: Mapping[str, onnx.TensorProto], node: onnx.NodeProto, at: int) -> float | None:
    if len(node.input) <= at or node.input[at] not in constants:
        return None
    return float(onnx.numpy_helper.to_array(constants[node.input[at]]).reshape(()))


def _used(flat: FlatModel, index: int) -> bool:
    return index in flat.inputs or any(index in op.inputs or index in op.outputs for op in flat.ops)


def _first(known: Mapping[str, Range], names: tuple[str, ...]) -> Range | None:
    # The last of equal tensors stands after the activation that the converter fused: its range is the fused one.
    return next((known[name] for name in reversed(names) if name in known), None)


def _spread(flat: FlatModel, ranges: dict[int, Range], activations: set[int]) -> None:
    keeping = [op for op in flat.ops if op.name in KEEPS_VALUES]
    before = -1
    while before != len(ranges):
        before = len(ranges)
        for op in keeping:
            ends = [index for index in (*op.inputs, *op.outputs) if index in activations]
            found = [ranges[index] for index in ends if index in ranges]
            if found:
                joined = (min(low for low, _ in found), max(high for _, high in found))
                for index in ends:
                    ranges.setdefault(index, joined)
