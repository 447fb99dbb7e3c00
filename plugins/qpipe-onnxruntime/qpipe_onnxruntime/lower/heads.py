"""Attention as exporters write it: Q, K and V cut into heads, softmax(scale · Q·Kᵀ + mask) · V, heads joined again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qpipe.quant.graph import attr_int, attr_ints, constant, is_float, top_consumers
from qpipe_onnxruntime.lower.bounds import ABSORBED, are_safe
from qpipe_onnxruntime.lower.extents import Extent, Extents

_APART, _TURNED = (0, 2, 1, 3), (0, 2, 3, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """One of Q, K, V: [B, S, n·d] as `source`, reshaped to [B, S, n, d] and transposed."""

    source: ir.Value
    reshape: ir.Node
    count: int
    size: int
    scale: float
    plain: bool
    """Whether the source is proven to be [B, S, n·d] already."""
    batch: Extent | None
    length: Extent | None

    @property
    def width(self) -> int:
        """Length of the last axis of the source."""
        return self.count * self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A mask that stands as Where(condition, score, fill), or with its branches the other way round.

    With a fill that swallows any score it is the same as score + Where(condition, 0, fill).
    """

    condition: ir.Value
    fill: ir.Value
    keeps: bool
    """Whether a true condition keeps the score."""


Mask = ir.Value | Filled


def added(mask: Mask) -> ir.Value:
    """The mask, or its fill: what is smallest in it."""
    return mask if isinstance(mask, ir.Value) else mask.fill


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The input of Softmax: scale · Q·Kᵀ and what is added to it."""

    q: Heads
    k: Heads
    scale: float
    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One attention core, from its three sources to the reshape that joins the heads."""

    softmax: ir.Node
    scores: Scores
    v: Heads
    end: ir.Node
    """The Reshape behind the last Transpose."""
    joins: bool
    """Whether that Reshape gives [B, S, n·d], and no other shape."""


def find_block(softmax: ir.Node, graph: ir.Graph, extents: Extents) -> Block | None:
    """The attention core around a Softmax, or None where a part of it is missing, read elsewhere, or not proven."""
    given = softmax.inputs[0]
    product = _next(softmax, "MatMul", graph)
    turn = _next(product, "Transpose", graph)
    end = _next(turn, "Reshape", graph)
    if given is None or product is None or turn is None or end is None:
        return None
    if attr_int(softmax, "axis", -1) not in (-1, 3) or attr_ints(turn, "perm", ()) != _APART:
        return None
    scores, v = _scores(given, graph, extents), _heads(product.inputs[1], _APART, graph, extents)
    if scores is None or v is None or v.scale != 1.0 or not _agree(scores, v):
        return None
    joins = _joins(end, scores.q, v, extents)
    return None if joins is None else Block(softmax=softmax, scores=scores, v=v, end=end, joins=joins)


def _next(node: ir.Node | None, op: str, graph: ir.Graph) -> ir.Node | None:
    """The one reader of this node, if it is of this type and reads it as its data."""
    found = _reader(node.outputs[0], graph) if node is not None else None
    if node is None or found is None or found.op_type != op or found.domain not in ("", "ai.onnx"):
        return None
    return found if found.inputs[0] is node.outputs[0] else None


def _agree(scores: Scores, v: Heads) -> bool:
    """Whether the kernel computes the same: no broadcast over batch or heads, a scale above 0, float32, safe masks."""
    q, k = scores.q, scores.k
    same = q.count == k.count == v.count and q.size == k.size and q.batch is not None and q.batch == k.batch == v.batch
    floats = all(is_float(one) for one in (q.source, k.source, v.source))
    values = [added(one) for one in scores.masks]
    return same and floats and 0 < scores.scale < float("inf") and all(map(is_float, values)) and are_safe(values)


def _joins(end: ir.Node, q: Heads, v: Heads, extents: Extents) -> bool | None:
    """Whether `end` gives [B, S, n·d]; None where its shape may copy axis 2, which is another one without heads."""
    found = extents.entries(end.inputs[1])
    if found is None or any(one == 0 or one is None for one in found[2:]):
        return None
    zeros = attr_int(end, "allowzero", 0) == 0
    if 0 in found and not zeros:
        return None
    if len(found) != 3:
        return False
    turned = end.inputs[0]
    own = [(0, mine, extents.extent(turned, axis)) for axis, mine in enumerate((q.batch, q.length))] if turned else []
    kept = [one is not None and one in mine for one, mine in zip(found, own, strict=False)]
    return sum(kept) + (found[2] == v.width) >= 2  # the third follows from the number of elements


def _scores(value: ir.Value, graph: ir.Graph, extents: Extents) -> Scores | None:
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or _reader(value, graph) is None:
        return None
    if node.op_type == "MatMul":
        q, k = _heads(node.inputs[0], _APART, graph, extents), _heads(node.inputs[1], _TURNED, graph, extents)
        return None if q is None or k is None else Scores(q=q, k=k, scale=q.scale * k.scale, masks=())
    if node.op_type in {"Mul", "Div"}:
        return _scaled(node, graph, extents)
    if node.op_type == "Add":
        for data, mask in (node.inputs, reversed(node.inputs)):
            if data is not None and mask is not None and (found := _scores(data, graph, extents)) is not None:
                return _with(found, mask)
    return _filled(node, graph, extents) if node.op_type == "Where" else None


def _with(found: Scores, mask: Mask) -> Scores:
    return Scores(q=found.q, k=found.k, scale=found.scale, masks=(*found.masks, mask))


def _scaled(node: ir.Node, graph: ir.Graph, extents: Extents) -> Scores | None:
    data, factor = _factor(node, extents)
    found = _scores(data, graph, extents) if data is not None else None
    if found is None or found.masks:
        return None
    return Scores(q=found.q, k=found.k, scale=found.scale * factor, masks=())


def _filled(node: ir.Node, graph: ir.Graph, extents: Extents) -> Scores | None:
    condition, kept, other = node.inputs
    if condition is None:
        return None
    for data, fill, keeps in ((kept, other, True), (other, kept, False)):
        array = constant(fill)
        if data is None or fill is None or array is None or array.size != 1 or array.dtype != np.float32:
            continue
        if np.isfinite(array).all() and array.reshape(-1)[0] <= -ABSORBED:
            found = _scores(data, graph, extents)
            return _with(found, Filled(condition=condition, fill=fill, keeps=keeps)) if found is not None else None
    return None


def _factor(node: ir.Node, extents: Extents) -> tuple[ir.Value | None, float]:
    """What is scaled, and by how much; (None, 1) where the node scales by no known number."""
    first, second = node.inputs
    if (number := extents.number(second)) is not None and number:
        return first, number if node.op_type == "Mul" else 1 / number
    if node.op_type == "Mul" and (number := extents.number(first)) is not None:
        return second, number
    return None, 1.0


def _heads(value: ir.Value | None, order: tuple[int, ...], graph: ir.Graph, extents: Extents) -> Heads | None:
    """The heads whose axes are [B, S, n, d] in this order, with any scale on the way."""
    axes, scale = (0, 1, 2, 3), 1.0
    while value is not None and _reader(value, graph) is not None and (node := value.producer()) is not None:
        if node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Reshape":
            return _cut(node, scale, extents) if axes == order else None
        if node.op_type == "Transpose":
            perm = attr_ints(node, "perm", ())
            if len(perm) != 4:
                return None
            axes, value = (perm[axes[0]], perm[axes[1]], perm[axes[2]], perm[axes[3]]), node.inputs[0]
        elif node.op_type in {"Mul", "Div"}:
            value, factor = _factor(node, extents)
            scale *= factor
        else:
            return None
    return None


def _cut(reshape: ir.Node, scale: float, extents: Extents) -> Heads | None:
    source, found = reshape.inputs[0], extents.entries(reshape.inputs[1])
    if source is None or found is None or len(found) != 4 or (0 in found and attr_int(reshape, "allowzero", 0)):
        return None
    count, size = found[2:]
    own = [extents.extent(source, axis) for axis in (0, 1)]
    kept = [one in (0, mine) for one, mine in zip(found, own, strict=False)]
    ranked = extents.leading(source).rank == 3
    width = extents.last(source)
    if -1 in (count, size):
        known = size if count == -1 else count
        if not (ranked and all(kept)) or width is None or not isinstance(known, int) or known < 1 or width % known:
            return None
        count, size = (width // known, size) if count == -1 else (count, width // known)
    if not isinstance(count, int) or not isinstance(size, int) or count < 1 or size < 1:
        return None
    # With three axes, two of three lengths kept are three kept: the number of elements is the same.
    plain = ranked and sum(kept) + (width == count * size) >= 2
    batch, length = own if plain else (own[axis] if found[axis] == 0 else _sure(found[axis]) for axis in (0, 1))
    return Heads(
        source=source, reshape=reshape, count=count, size=size, scale=scale, plain=plain, batch=batch, length=length
    )


def _sure(entry: Extent | None) -> Extent | None:
    return None if isinstance(entry, int) and entry < 1 else entry


def _reader(value: ir.Value, graph: ir.Graph) -> ir.Node | None:
    """The one node that reads the value, apart from those that ask for its shape."""
    nodes = top_consumers(value, graph)
    if nodes is None or value.is_graph_output():
        return None
    readers = [node for node in nodes if node.op_type != "Shape"]
    return readers[0] if len(readers) == 1 else None
