"""Which tensors are never negative, from the operators that make them: then 0 is a lower end before any row is run."""

from __future__ import annotations

import onnx_ir as ir

from qpipe.quant.operators import clip_bounds

_NEVER = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp", "Abs", "Sqrt"})
_KEEPING = frozenset(
    {
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Dropout"),
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"),
    }
)
"""Operators whose output has no other values, or means of them."""
_JOINING = frozenset({"Concat", "Add", "Mul", "Max"})
"""Operators that keep the sign of their inputs, where all have it."""
DEPTH = 8
"""Operators that are followed back."""


def never_negative(value: ir.Value, depth: int = DEPTH) -> bool:
    """Whether no finite input of the graph can make a value below 0 here."""
    node = value.producer()
    if node is None or node.domain not in {"", "ai.onnx"} or not depth:
        return False
    if node.op_type == "Clip":
        bounds = clip_bounds(node)
        return bounds is not None and min(bounds) >= 0  # where the upper end is the lower one, all values are set to it
    if node.op_type in _KEEPING:
        return node.inputs[0] is not None and never_negative(node.inputs[0], depth - 1)
    if node.op_type in _JOINING:
        return all(one is not None and never_negative(one, depth - 1) for one in node.inputs)
    return node.op_type in _NEVER
