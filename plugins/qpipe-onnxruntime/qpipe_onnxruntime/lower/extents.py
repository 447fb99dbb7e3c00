"""What can be proven about lengths in a graph without shapes: equal leading axes, and what a computed shape holds.

Quantized graphs carry no shapes of intermediates, and onnx infers none behind the runtime's own operators. Two lengths
are equal here if both lead back to one axis of one value, or have one number or one name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qpipe.quant.graph import attr_int, attr_ints, constant, rank_of

Extent = int | str | tuple[ir.Value, int]
"""A length: a number, the name of a symbolic axis, or an axis of a value."""

_SAME = frozenset(
    {
        *("Identity", "Cast", "Dropout", "Relu", "LeakyRelu", "Elu", "Gelu", "FastGelu", "Erf", "Tanh", "Sigmoid"),
        *("Clip", "Sqrt", "Neg", "Abs", "Softmax", "HardSigmoid", "HardSwish"),
        *("LayerNormalization", "SimplifiedLayerNormalization"),
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    }
)
"""Operators whose first output has the shape of their first input."""
_PAIRS = frozenset({"Add", "Sub", "Mul", "Div"})
_WEIGHT = {"MatMul": 1, "MatMulInteger": 1, "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1, "QLinearMatMul": 3}
"""Where products of an activation and a weight have the weight."""
_PACKED = frozenset({"MatMulNBits", "MatMulBnb4"})
_ARITHMETIC: Mapping[str, Callable[..., np.float64]] = {
    "Cast": np.positive,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Add": np.add,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
}
_CARRIERS = frozenset({"Unsqueeze", "Squeeze", "Cast", "Identity", "Reshape"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Leading:
    """The value that has the same axes 0 and 1, and the number of axes where it is known."""

    root: ir.Value
    rank: int | None


class Extents:
    """Lengths of the values of one graph. Ask in the order of its nodes: what is asked later rests on what was."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, Leading] = {}

    def leading(self, value: ir.Value) -> Leading:
        """The value that `value` has its first two axes from, itself at worst."""
        if value not in self._known:
            self._known[value] = self._trace(value)
        return self._known[value]

    def extent(self, value: ir.Value, axis: int) -> Extent:
        """The length of one axis."""
        root = self.leading(value).root if axis in (0, 1) else value
        own, first = (_axis(one.shape, axis) for one in (value, root))
        if axis + 1 == self.leading(value).rank and not isinstance(own, int):
            own = self.last(value)
        number = own if isinstance(own, int) else first
        return (root, axis) if number is None else number

    def last(self, value: ir.Value) -> int | None:
        """The length of the last axis, where it is a known number."""
        if value.shape is not None and len(value.shape) and isinstance(size := value.shape[-1], int):
            return size
        node = value.producer()
        if node is None or (value is not node.outputs[0] and node.op_type != "Split"):
            return None
        columns = _columns(node)
        return self._last_behind(node, value) if columns is None else columns

    def _last_behind(self, node: ir.Node, value: ir.Value) -> int | None:
        if node.op_type in _PAIRS:
            return _vector_size(node)
        if node.op_type == "Split":
            return self._part(node, value)
        if node.op_type == "Reshape":
            end = (self.entries(node.inputs[1]) or (None,))[-1]
            return end if isinstance(end, int) and end > 0 else None
        kept = node.op_type in _SAME or (node.op_type == "Transpose" and _keeps_last(node))
        return self.last(node.inputs[0]) if kept and node.inputs[0] is not None else None

    def _part(self, node: ir.Node, value: ir.Value) -> int | None:
        """The last axis of one part of a Split along it."""
        if not self._splits_after(node, 1) or attr_int(node, "axis", 0) not in (-1, (self._rank(node) or 0) - 1):
            return None
        sizes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if sizes is not None:
            return int(sizes.reshape(-1)[node.outputs.index(value)])
        whole = self.last(node.inputs[0]) if len(node.inputs) == 1 and node.inputs[0] is not None else None
        return whole // len(node.outputs) if whole is not None and whole % len(node.outputs) == 0 else None

    def _rank(self, node: ir.Node) -> int | None:
        return self.leading(node.inputs[0]).rank if node.inputs[0] is not None else None

    def _splits_after(self, node: ir.Node, axis: int) -> bool:
        """Whether a Split leaves the axes up to this one alone."""
        at, rank = attr_int(node, "axis", 0), self._rank(node)
        return at > axis or (at < 0 and rank is not None and rank + at > axis)

    def entries(self, shape: ir.Value | None) -> tuple[Extent | None, ...] | None:
        """What a shape tensor holds, None for an entry that is not known; None where not even its length is."""
        array = constant(shape)
        if array is not None:
            return tuple(int(one) for one in array.reshape(-1)) if array.ndim < 2 and array.dtype.kind == "i" else None
        node = shape.producer() if shape is not None else None
        if node is None:
            return None
        if node.op_type in _CARRIERS:
            return self.entries(node.inputs[0])
        if node.op_type == "Concat":
            parts = [self.entries(one) for one in node.inputs]
            return None if None in parts else tuple(one for part in parts if part is not None for one in part)
        if node.op_type == "Shape":
            return self._axes_of(node)
        return self._picked(node) if node.op_type in {"Gather", "Slice"} else None

    def number(self, value: ir.Value | None) -> float | None:
        """A scalar, also one that is computed from lengths, as √d is."""
        array = constant(value)
        if value is None or array is not None:
            return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None
        held = self.entries(value)
        if held is not None and len(held) == 1 and isinstance(held[0], int) and held[0] > 0:
            return float(held[0])
        node = value.producer()
        if node is None or node.op_type not in _ARITHMETIC:
            return None
        numbers = [self.number(one) for one in node.inputs]
        if None in numbers:
            return None
        with np.errstate(all="ignore"):
            found = float(_ARITHMETIC[node.op_type](*(np.float64(one) for one in numbers if one is not None)))
        return found if math.isfinite(found) else None

    def _axes_of(self, node: ir.Node) -> tuple[Extent, ...] | None:
        source = node.inputs[0]
        rank = self.leading(source).rank if source is not None else None
        if source is None or rank is None:
            return None
        axes = range(rank)[attr_int(node, "start", 0) : attr_int(node, "end", rank)]
        return tuple(self.extent(source, axis) for axis in axes)

    def _picked(self, node: ir.Node) -> tuple[Extent | None, ...] | None:
        table = self.entries(node.inputs[0])
        numbers = [constant(one) for one in node.inputs[1:]]
        if table is None or any(one is None for one in numbers):
            return None
        indices = [[int(item) for item in one.reshape(-1)] for one in numbers if one is not None]
        if node.op_type == "Slice":
            steps = indices[3] if len(indices) > 3 else [1]
            return table[indices[0][0] : indices[1][0]] if steps == [1] else None
        places = indices[0]
        return tuple(table[place] for place in places) if all(-len(table) <= at < len(table) for at in places) else None

    def _trace(self, value: ir.Value) -> Leading:
        own = Leading(root=value, rank=rank_of(value))
        node = value.producer()
        source = node.inputs[0] if node is not None and node.inputs else None
        if node is None or source is None:
            return own
        if node.op_type == "Split":
            return self._passed(source, own) if self._splits_after(node, 1) else own
        if value is not node.outputs[0] or node.op_type not in {"Reshape", "Transpose", *_PAIRS}:
            return self._passed(source, own) if value is node.outputs[0] and self._keeps(node, source) else own
        if node.op_type == "Transpose":
            return Leading(root=value, rank=len(attr_ints(node, "perm", ())) or own.rank)
        return self._reshaped(node, own) if node.op_type == "Reshape" else self._paired(node) or own

    def _keeps(self, node: ir.Node, source: ir.Value) -> bool:
        """Whether the first output has the first two axes of the first input."""
        product = node.op_type == "Attention" or _columns(node) is not None
        return node.op_type in _SAME or (product and (self.leading(source).rank or 0) > 2)

    def _passed(self, source: ir.Value, own: Leading) -> Leading:
        found = self.leading(source)
        return Leading(root=found.root, rank=own.rank if found.rank is None else found.rank)

    def _paired(self, node: ir.Node) -> Leading | None:
        """Of two values, of which one is a constant vector or both have the same root."""
        wide = [one for one in node.inputs if one is not None and not _is_vector(one)]
        found = [self.leading(one) for one in wide]
        if not found or any(one != found[0] or one.rank is None or one.rank < 3 for one in found):
            return None
        return found[0]

    def _reshaped(self, node: ir.Node, own: Leading) -> Leading:
        source, found = node.inputs[0], self.entries(node.inputs[1])
        if source is None or found is None or len(found) < 3:
            return own
        roots = [one[0] for axis, one in enumerate(found[:2]) if isinstance(one, tuple) and one[1] == axis]
        kept = attr_int(node, "allowzero", 0) == 0 and found[:2] == (0, 0)
        if kept:
            return Leading(root=self.leading(source).root, rank=len(found))
        root = roots[0] if len(roots) == 2 and roots[0] is roots[1] else own.root
        return Leading(root=root, rank=len(found))


def _keeps_last(node: ir.Node) -> bool:
    perm = attr_ints(node, "perm", ())
    return len(perm) > 0 and perm[-1] == len(perm) - 1


def has_columns(value: ir.Value) -> bool:
    """Whether a constant matrix, or a constant vector added to it, says how long the last axis is."""
    node = value.producer()
    if node is None:
        return False
    return _columns(node) is not None or (node.op_type in _PAIRS and _vector_size(node) is not None)


def _vector_size(node: ir.Node) -> int | None:
    """The length of a constant vector among its inputs, if it is over 1."""
    sizes = [array.size for one in node.inputs if (array := constant(one)) is not None and array.ndim == 1]
    return next((size for size in sizes if size > 1), None)


def _axis(shape: ir.Shape | None, axis: int) -> int | str | None:
    dim = shape[axis] if shape is not None and axis < len(shape) else None
    return dim.value if isinstance(dim, ir.SymbolicDim) else dim


def _columns(node: ir.Node) -> int | None:
    """The number of columns of the matrix that this node multiplies its input by."""
    if node.op_type in _PACKED:
        return attr_int(node, "N", 0) or None
    place = _WEIGHT.get(node.op_type)
    weight = node.inputs[place] if place is not None and len(node.inputs) > place else None
    behind = weight.producer() if weight is not None else None
    if behind is not None and behind.op_type == "DequantizeLinear":
        weight = behind.inputs[0]
    array = constant(weight)
    return int(array.shape[1]) if array is not None and array.ndim == 2 else None


def _is_vector(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.ndim < 2
