"""Ranges of the plan, carried over to the `.tflite` tensors that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from qpipe.records.quantization import QuantPlan
from qpipe_litert.flatbuffer import FlatModel, FlatOp
from qpipe_litert.operators import FIXED_RANGES, KEEPS_SCALE, KEEPS_VALUES

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedRanges:
    """Ranges by `.tflite` tensor index, and float tensors for which the plan has none."""

    ranges: Mapping[int, Range]
    missing: tuple[int, ...]


def carry_ranges(
    plan: QuantPlan,
    graph: onnx.ModelProto,
    flat: FlatModel,
    matched: Mapping[int, tuple[str, ...]],
    *,
    whole: bool = False,
) -> CarriedRanges:
    """The plan's ranges for every float activation of the file.

    A tensor that the plan does not name takes the range of the tensor before its Relu or Clip, cut as that operator
    cuts; then that of its neighbour across operators that keep values. `whole`: floats are to be nowhere, so that
    operators that leave no choice of an output's range give it one as well (`_derived`).
    """
    known = plan_ranges(plan, graph)
    activations = [t.index for t in flat.tensors if t.dtype == "float32" and not t.constant and _used(flat, t.index)]
    ranges = {index: r for index in activations if (r := _first(known, matched.get(index, ()))) is not None}
    _spread(flat, ranges, set(activations), whole=whole)
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


def _spread(flat: FlatModel, ranges: dict[int, Range], activations: set[int], *, whole: bool) -> None:
    keeping = KEEPS_SCALE if whole else KEEPS_VALUES
    before = -1
    while before != len(ranges):
        before = len(ranges)
        for op in flat.ops:
            ends = [index for index in (*op.inputs, *op.outputs) if index in activations]
            if op.name in keeping:
                found = [ranges[index] for index in ends if index in ranges]
                joined = (min(low for low, _ in found), max(high for _, high in found)) if found else None
            else:
                ends = list(op.outputs[:1])
                joined = _derived(flat, op, ranges) if whole else None
            if joined is not None:
                for index in ends:
                    ranges.setdefault(index, joined)


def _derived(flat: FlatModel, op: FlatOp, ranges: Mapping[int, Range]) -> Range | None:
    """The range that an operator itself gives its output: of its kernel, of an input's type, of a sum or product."""
    taken = [ranges[index] for index in op.inputs if index in ranges]
    if op.name in FIXED_RANGES and taken:
        read = [other.name for other in flat.ops if op.outputs[0] in other.inputs]
        return None if "LOG" in read else FIXED_RANGES[op.name]  # the logarithm of what was rounded to zero
    if op.name == "CAST":
        return (0.0, 255.0) if flat.tensors[op.inputs[0]].dtype == "uint8" else None
    found = _with_number(flat, op, taken[0]) if len(taken) == 1 else None
    if op.activation == "RELU6":
        low, high = found or (0.0, 6.0)
        return min(max(low, 0.0), 6.0), min(max(high, 0.0), 6.0)
    return found if not op.activation else None


def _with_number(flat: FlatModel, op: FlatOp, taken: Range) -> Range | None:
    """Range of a sum with one number, or of a product with one: as exact as the input's."""
    number = next((value for index in op.inputs if (value := flat.tensors[index].value) is not None), None)
    if number is None or op.name not in {"ADD", "MUL"}:
        return None
    low, high = sorted(end + number if op.name == "ADD" else end * number for end in taken)
    return min(low, 0.0), max(high, 0.0)
