"""Attention as one kernel: the operator Attention of ONNX 23, which onnxruntime runs but makes of no graph by itself.

The CPU kernel reads heads in place of transposing them, and what computed the shapes of Reshapes has no reader left.
It takes a mask of [B or 1, n or 1, S, T] and broadcasts no other axis, so masks are expanded, once for all blocks of
the same lengths. MultiHeadAttention of com.microsoft transposes as the graph does and gained nothing at larger batches.
Source: ONNX operator Attention, opset 23; onnxruntime 1.31.1, core/providers/cpu/llm/attention.cc.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from qpipe.errors import ModelError
from qpipe.quant.graph import attr_ints, constant, converted, infer_shapes, name_of
from qpipe.quant.rendering.render import forget_shapes
from qpipe.quant.writer import Writer
from qpipe_onnxruntime.lower.extents import Extents, has_columns
from qpipe_onnxruntime.lower.heads import Block, Heads, find_block
from qpipe_onnxruntime.lower.masks import Masks
from qpipe_onnxruntime.machine import onnxruntime_version

OPSET = 23
"""The first with Attention."""
_NEEDED = 13
"""The first whose Softmax works along one axis."""
_FIRST = (1, 31)
"""The first onnxruntime whose kernel was compared with what it replaces: masks, empty rows, lengths of one."""
_SMALL_BYTES = 1024


def lower_attention(model: ir.Model) -> tuple[str, ...]:
    """Run each attention core as one kernel, in place; a note for each kind of change.

    The graph is raised to opset 23 for it. A graph in which nothing matches is left as it is.
    """
    opset = model.opset_imports.get("", 0)
    if opset < _NEEDED or not _checked() or all(node.op_type != "Softmax" for node in model.graph):
        return ()
    changed, spared = model.clone(), frozenset[str]()
    found = _fuse(changed, spared)
    if found.twice:
        changed, spared = model.clone(), found.twice
        found = _fuse(changed, spared)
    if found.count and opset < OPSET:
        # What is there to be fused was tried out first: a graph is not raised for nothing.
        try:
            changed = _raised(model)
        except ModelError as error:
            return (f"attention stays in separate operators: {error.message}",)
        found = _fuse(changed, spared)
    if not found.count:
        return ()
    forget_shapes(changed.graph)
    model.graph = changed.graph
    many = "blocks run as one kernel each" if found.count > 1 else "block runs as one kernel"
    return (f"{found.count} attention {many} (Attention)",)


def _checked() -> bool:
    """Whether this onnxruntime is one whose kernel the rules here were compared with."""
    return tuple(int(part) for part in re.findall(r"\d+", onnxruntime_version())[:2]) >= _FIRST


def _raised(model: ir.Model) -> ir.Model:
    """The graph in opset 23. Weights stay out of the conversion, which has a copy of what it gets and 2 GB at most."""
    bare, held = model.clone(), dict[str, ir.TensorProtocol]()
    for name, value in list(bare.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING or value.is_graph_input():
            continue
        if tensor.nbytes <= _SMALL_BYTES:
            # A copy: the conversion may need its numbers, and does not find files beside the graph.
            value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=name)
            continue
        held[name] = tensor
        bare.graph.initializers.pop(name)
        value.const_value, value.shape, value.type = None, ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        bare.graph.inputs.append(value)
    raised = converted(bare, OPSET)
    for value in [one for one in raised.graph.inputs if one.name in held]:
        raised.graph.inputs.remove(value)
        value.const_value = held[name_of(value)]
        raised.graph.register_initializer(value)
    return raised


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """What a pass over the graph did."""

    count: int
    twice: frozenset[str]
    """Softmax nodes of fused blocks that somebody still reads: these would be computed twice."""


def _fuse(model: ir.Model, spared: frozenset[str]) -> Fused:
    """Fuse what can be fused, in place, except around the Softmax nodes of these names."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_shapes(model)
    graph, extents = model.graph, Extents()
    writer = Writer(graph)
    masks = Masks(writer, extents)
    done: set[ir.Node] = set()
    for node in list(graph):
        block = find_block(node, graph, extents) if node.op_type == "Softmax" and node.name not in spared else None
        if block is not None:
            _replace(writer, block, masks)
            done.add(node)
            continue
        for value in node.outputs:
            extents.leading(value)
    if done:
        passes.RemoveUnusedNodesPass()(model)
        _ask_sources(writer)
        passes.RemoveUnusedNodesPass()(model)
        graph.sort()
    return Fused(count=len(done), twice=frozenset(node.name or "" for node in done if node.graph is graph))


def _ask_sources(writer: Writer) -> None:
    """Shape of a transposed value becomes the transposed Shape: causal masks ask heads for lengths, and copy them."""
    for node in list(writer.graph):
        source = node.inputs[0] if node.op_type == "Shape" and not node.attributes else None
        turn = source.producer() if source is not None else None
        if turn is None or turn.op_type != "Transpose" or not (perm := attr_ints(turn, "perm", ())):
            continue
        axes = writer.initializer(f"{turn.name}_axes", np.array(perm))
        lengths = writer.insert(node, "Gather", [writer.insert(node, "Shape", [turn.inputs[0]]), axes], {"axis": 0})
        node.outputs[0].replace_all_uses_with(lengths, replace_graph_outputs=True)


def _replace(writer: Writer, block: Block, masks: Masks) -> None:
    scores, end = block.scores, block.end
    q, k, v = (_joined(writer, heads, end) for heads in (scores.q, scores.k, block.v))
    inputs = [q, k, _stated(writer, block.v, v, end)]
    if (mask := masks.get(scores.masks, q, k, end)) is not None:
        inputs.append(mask)
    count = scores.q.count
    settings = {"q_num_heads": count, "kv_num_heads": count, "scale": scores.scale}
    output = writer.insert(end, "Attention", inputs, settings, block.softmax.name or "")
    if not block.joins:
        output.name = writer.names.fresh(f"{name_of(end.outputs[0])}_heads")
        end.replace_input_with(0, output)
        return
    old = end.outputs[0]
    name, kind = old.name, old.type
    old.replace_all_uses_with(output, replace_graph_outputs=old.is_graph_output())
    writer.graph.remove(end, safe=True)
    output.name, output.type = name, kind


def _joined(writer: Writer, heads: Heads, before: ir.Node) -> ir.Value:
    """The heads as [B, S, n·d]: the source, or where that is not proven the same reshape without its last cut."""
    if heads.plain:
        return heads.source
    shape, width = heads.reshape.inputs[1], np.array([heads.width])
    array = constant(shape)
    name = f"{heads.reshape.name}/joined"
    if array is not None:
        joined = writer.initializer(name, np.concatenate([array[:2], width]))
    else:
        first = writer.initializer(f"{name}_axes", np.arange(2))
        leading = writer.insert(before, "Gather", [shape, first], {"axis": 0})
        joined = writer.insert(before, "Concat", [leading, writer.initializer(name, width)], {"axis": 0})
    return writer.insert(before, "Reshape", [heads.source, joined])


def _stated(writer: Writer, heads: Heads, value: ir.Value, before: ir.Node) -> ir.Value:
    """The value with a last axis that onnxruntime infers too: where it does not, it takes the output for 0 wide."""
    if has_columns(value):
        return value
    shape = writer.initializer(f"{heads.reshape.name}/width", np.array([0, 0, heads.width]))
    return writer.insert(before, "Reshape", [value, shape])
