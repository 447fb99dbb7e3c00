"""Attention as one kernel: the operator Attention of ONNX 23, which onnxruntime runs but makes of no graph by itself.

The CPU kernel reads heads in place of transposing them, and what computed the shapes of Reshapes has no reader left.
It takes a mask of [B or 1, n or 1, S, T] and broadcasts no other axis, so masks are expanded, once for all blocks of
the same lengths. MultiHeadAttention of com.microsoft transposes as the graph does and gained nothing at larger batches.
Source: ONNX operator Attention, opset 23; onnxruntime 1.31.1, core/providers/cpu/llm/attention.cc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from qpipe.errors import ModelError
from qpipe.quant.graph import add_initializer, constant, fresh_name, infer_shapes, name_of, upgraded
from qpipe.quant.render import forget_shapes
from qpipe_onnxruntime.lower.extents import Extent, Extents, has_columns
from qpipe_onnxruntime.lower.heads import Block, Heads, Mask, added, find_block
from qpipe_onnxruntime.lower.masks import FLOOR, needs_floor

OPSET = 23
"""The first with Attention."""
_NEEDED = 13
"""The first whose Softmax works along one axis."""
NONE: Mapping[str, int | float] = MappingProxyType({})


def fuse_attention(model: onnx.ModelProto) -> tuple[str, ...]:
    """Run each attention core as one kernel, in place; a note for each kind of change.

    The graph is raised to opset 23 for it. A graph in which nothing matches is left as it is.
    """
    opened = ir.from_proto(model)
    notes = lower_attention(opened)
    if notes:
        model.CopyFrom(ir.to_proto(opened))
    return notes


def lower_attention(model: ir.Model) -> tuple[str, ...]:
    """The same on a graph that is open already."""
    opset = model.opset_imports.get("", 0)
    if opset < _NEEDED or all(node.op_type != "Softmax" for node in model.graph):
        return ()
    changed = model.clone()
    count = _fuse(changed)
    if count and opset < OPSET:
        # Only what is there to be fused is worth another opset, and the nodes are to be fused in that one.
        try:
            changed = upgraded(model, OPSET)
        except ModelError as error:
            return (f"attention stays in separate operators: {error.message}",)
        count = _fuse(changed)
    if not count:
        return ()
    forget_shapes(changed.graph)
    model.graph = changed.graph
    one = count == 1
    return (
        f"{count} attention {'block runs' if one else 'blocks run'} as one kernel{'' if one else ' each'} (Attention)",
    )


def _fuse(model: ir.Model) -> int:
    """Fuse what can be fused, in place; how many blocks."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_shapes(model)
    graph, extents = model.graph, Extents()
    masks = Masks(graph, extents)
    count = 0
    for node in list(graph):
        if node.op_type == "Softmax" and (block := find_block(node, graph, extents)) is not None:
            _replace(graph, block, masks)
            count += 1
            continue
        for value in node.outputs:
            extents.leading(value)
    if count:
        passes.RemoveUnusedNodesPass()(model)
        graph.sort()
    return count


class Masks:
    """The masks of a graph as the kernel takes them; the same one for all blocks that mean the same."""

    def __init__(self, graph: ir.Graph, extents: Extents) -> None:
        self.graph = graph
        self.extents = extents
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def get(self, wanted: tuple[Mask, ...], q: ir.Value, k: ir.Value, before: ir.Node) -> ir.Value | None:
        """The sum of these masks as [B or 1, n or 1, S, T]."""
        if not wanted:
            return None
        lengths = self.extents.extent(q, 1), self.extents.extent(k, 1)
        key = (wanted, lengths)
        if key not in self._made:
            total = self._added(wanted[0], before)
            for one in wanted[1:]:
                total = _insert(before, "Add", [total, self._added(one, before)])
            if needs_floor([added(one) for one in wanted]):
                floor = add_initializer(self.graph, fresh_name(self.graph, "mask_floor"), np.asarray(FLOOR))
                shape, total = total.shape, _insert(before, "Max", [total, floor])
                total.shape = shape
            self._made[key] = total if self._fits(total, lengths) else self._expanded(total, q, k, before)
        return self._made[key]

    def _added(self, mask: Mask, before: ir.Node) -> ir.Value:
        if isinstance(mask, ir.Value):
            return mask
        key = (mask,)
        if key not in self._made:
            zero = add_initializer(self.graph, fresh_name(self.graph, "mask_zero"), np.zeros((), np.float32))
            branches = [zero, mask.fill] if mask.keeps else [mask.fill, zero]
            self._made[key] = _insert(before, "Where", [mask.condition, *branches])
        return self._made[key]

    def _fits(self, mask: ir.Value, lengths: tuple[Extent, Extent]) -> bool:
        if mask.shape is None or not 2 <= len(mask.shape) <= 4:
            return False
        rank = len(mask.shape)
        own = tuple(self.extents.extent(mask, axis) for axis in (rank - 2, rank - 1))
        return own == lengths

    def _expanded(self, mask: ir.Value, q: ir.Value, k: ir.Value, before: ir.Node) -> ir.Value:
        ones = add_initializer(self.graph, fresh_name(self.graph, "mask_ones"), np.ones(2, np.int64))
        rows, columns = (_insert(before, "Shape", [one], {"start": 1, "end": 2}) for one in (q, k))
        shape = _insert(before, "Concat", [ones, rows, columns], {"axis": 0})
        return _insert(before, "Expand", [mask, shape])


def _replace(graph: ir.Graph, block: Block, masks: Masks) -> None:
    scores, end = block.scores, block.end
    q, k, v = (_joined(graph, heads, end) for heads in (scores.q, scores.k, block.v))
    inputs = [q, k, _stated(graph, block.v, v, end)]
    if (mask := masks.get(scores.masks, q, k, end)) is not None:
        inputs.append(mask)
    count = scores.q.count
    settings = {"q_num_heads": count, "kv_num_heads": count, "scale": scores.scale}
    output = _insert(end, "Attention", inputs, settings, block.softmax.name or "")
    if not block.joins:
        output.name = fresh_name(graph, f"{name_of(end.outputs[0])}_heads")
        end.replace_input_with(0, output)
        return
    old = end.outputs[0]
    name, kind = old.name, old.type
    old.replace_all_uses_with(output, replace_graph_outputs=old.is_graph_output())
    graph.remove(end, safe=True)
    output.name, output.type = name, kind


def _joined(graph: ir.Graph, heads: Heads, before: ir.Node) -> ir.Value:
    """The heads as [B, S, n·d]: the source, or where that is not proven the same reshape without its last cut."""
    if heads.plain:
        return heads.source
    shape, width = heads.reshape.inputs[1], np.array([heads.width])
    array = constant(shape)
    name = fresh_name(graph, f"{heads.reshape.name}/joined")
    if array is not None:
        joined = add_initializer(graph, name, np.concatenate([array[:2], width]))
    else:
        first = add_initializer(graph, fresh_name(graph, f"{name}_axes"), np.arange(2))
        leading = _insert(before, "Gather", [shape, first], {"axis": 0})
        joined = _insert(before, "Concat", [leading, add_initializer(graph, name, width)], {"axis": 0})
    return _insert(before, "Reshape", [heads.source, joined])


def _stated(graph: ir.Graph, heads: Heads, value: ir.Value, before: ir.Node) -> ir.Value:
    """The value with a last axis that onnxruntime infers too: where it does not, it takes the output for 0 wide."""
    if has_columns(value):
        return value
    shape = add_initializer(graph, fresh_name(graph, f"{heads.reshape.name}/width"), np.array([0, 0, heads.width]))
    return _insert(before, "Reshape", [value, shape])


def _insert(
    before: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, int | float] = NONE,
    name: str = "",
) -> ir.Value:
    node = ir.node(op, inputs, attributes, name=name or None)
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(before, node)
    return node.outputs[0]
