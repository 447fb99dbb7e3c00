"""The smallest value of an attention mask: whether the fused kernel means the same by it as Softmax does.

The kernel gives zeros where all scores of a row are the lowest float32 or -inf; Softmax gives equal weights for the
first and NaN for the second (onnxruntime 1.31.1). So masks end a little above the lowest float32, which is the same to
Softmax, and a mask that may hold -inf stays out, except a constant one that leaves something in each row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from qpipe.quant.graph import constant

_FIRST = slice(0, 1)
_CHOICES = {
    **dict.fromkeys(("Unsqueeze", "Squeeze", "Expand", "Slice", "Gather", "Reshape", "Transpose"), _FIRST),
    **dict.fromkeys(("Identity", "Tile"), _FIRST),
    "Where": slice(1, 3),
    "Concat": slice(None),
}
"""Operators whose output holds values of some inputs and no others: which inputs."""
Bounds = tuple[np.float32, np.float32]
FLOOR = np.float32(-3.4e38)
"""Above the lowest float32, and so low that adding a score changes nothing."""
ABSORBED = np.float32(1e30)
"""float32 below -1e30 swallows any score: adding one changes nothing."""
_DEEPEST = 200


def are_safe(masks: Sequence[ir.Value]) -> bool:
    """Whether the sum of these masks makes no row of scores -inf throughout."""
    return _leaves_some(masks) or sum_bounds(masks) is not None


def needs_floor(masks: Sequence[ir.Value]) -> bool:
    """Whether their sum may have rows that are the lowest float32 throughout."""
    total = sum_bounds(masks)
    return total is not None and bool(total[0] < FLOOR) and not _leaves_some(masks)


def sum_bounds(masks: Sequence[ir.Value]) -> Bounds | None:
    """Smallest and largest value of the sum, both finite, or None where that is not proven."""
    total: Bounds | None = np.float32(0), np.float32(0)
    for mask in masks:
        total = _combined("Add", total, bounds(mask))
    return total


def _leaves_some(masks: Sequence[ir.Value]) -> bool:
    """Whether there is one mask, which is constant and has a moderate value in each row."""
    array = constant(masks[0]) if len(masks) == 1 else None
    if array is None or not array.ndim or not array.size:
        return False
    return all(abs(one) < ABSORBED for one in array.max(axis=-1).reshape(-1).tolist())


def bounds(value: ir.Value | None, depth: int = 0) -> Bounds | None:
    """Smallest and largest value, both finite, or None where that is not proven.

    Integers that are cast to float count as 0 and 1, the only values that a mask has.
    """
    array = constant(value)
    if array is not None:
        return _checked(array.min(), array.max()) if array.size else None
    node = value.producer() if value is not None else None
    if node is None or depth > _DEEPEST:
        return None
    if node.op_type == "Cast":
        return _cast(node, depth)
    choices = _CHOICES.get(node.op_type)
    if choices is not None:
        return _union([bounds(one, depth + 1) for one in node.inputs[choices]])
    if node.op_type in {"Add", "Sub", "Mul"}:
        return _combined(node.op_type, *(bounds(one, depth + 1) for one in node.inputs))
    return None


def _cast(node: ir.Node, depth: int) -> Bounds | None:
    source = node.inputs[0]
    if source is None or source.dtype is None:
        return None
    if source.dtype.is_floating_point():
        return bounds(source, depth + 1)
    return np.float32(0), np.float32(1)


def _union(parts: list[Bounds | None]) -> Bounds | None:
    known = [one for one in parts if one is not None]
    if not known or len(known) != len(parts):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def _combined(op: str, first: Bounds | None, second: Bounds | None) -> Bounds | None:
    if first is None or second is None:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        if op == "Mul":
            corners = [one * other for one in first for other in second]
            return _checked(min(corners), max(corners))
        low, high = second if op == "Add" else (-second[1], -second[0])
        return _checked(first[0] + low, first[1] + high)


def _checked(low: np.generic, high: np.generic) -> Bounds | None:
    with np.errstate(over="ignore"):
        found = np.float32(low), np.float32(high)
    return found if np.isfinite(found[0]) and np.isfinite(found[1]) else None
