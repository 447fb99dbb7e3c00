"""A shortcut without weights (strided Slice, then channel Pad) as a 1×1 Conv of zeros and ones: exact, and integer.

Source: option A of He et al. 2016, arXiv:1512.03385, section 4.2.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qpipe.quant.edits import add_initializer, fresh_name, take_place
from qpipe.quant.fold.pad import all_pads
from qpipe.quant.graph import constant, only_consumer, rank_of


def fold_selections(graph: ir.Graph) -> int:
    """Replace chains of Slice… + Pad on rank-4 tensors by one Conv each; how many."""
    done = 0
    for pad in [node for node in graph if node.op_type == "Pad"]:
        pads = all_pads(pad)
        if pads is None or len(pads) != 8 or any(pads[place] for place in (0, 2, 3, 4, 6, 7)) or not pad.inputs[0]:
            continue
        source, strides = _sliced(pad.inputs[0], graph)
        channels = source.shape[1] if source.shape is not None and rank_of(source) == 4 else None
        if not isinstance(channels, int) or source.is_initializer() or source.dtype != ir.DataType.FLOAT:
            continue
        _replace(graph, pad, source, strides, channels, before=pads[1], after=pads[5])
        done += 1
    return done


def _sliced(value: ir.Value, graph: ir.Graph) -> tuple[ir.Value, tuple[int, int]]:
    """The tensor before a chain of strided spatial slices, and the strides."""
    strides = [1, 1]
    while (node := value.producer()) is not None and node.op_type == "Slice" and only_consumer(value, graph):
        steps = _spatial_steps(node)
        if steps is None or node.inputs[0] is None:
            break
        strides = [strides[0] * steps[0], strides[1] * steps[1]]
        value = node.inputs[0]
    return value, (strides[0], strides[1])


def _spatial_steps(node: ir.Node) -> tuple[int, int] | None:
    """Steps of the two spatial axes where the Slice starts at 0 and runs to the end, or None."""
    arrays = [constant(value) for value in node.inputs[1:]]
    source = node.inputs[0]
    if len(arrays) != 4 or any(array is None for array in arrays) or source is None or source.shape is None:
        return None
    starts, ends, axes, steps = (np.asarray(array, np.int64).reshape(-1) for array in arrays)
    found = {2: 1, 3: 1}
    for start, end, axis, step in zip(starts, ends, axes % 4, steps, strict=True):
        size = source.shape[int(axis)]
        to_end = end >= 2**31 - 1 or (isinstance(size, int) and end >= size)
        if start != 0 or not to_end or step < 1:
            return None
        if axis in found:
            found[int(axis)] *= int(step)
        elif step != 1:
            return None
    return found[2], found[3]


def _replace(
    graph: ir.Graph, pad: ir.Node, source: ir.Value, strides: tuple[int, int], channels: int, *, before: int, after: int
) -> None:
    weight = np.zeros((before + channels + after, channels, 1, 1), np.float32)
    weight[before : before + channels, :, 0, 0] = np.eye(channels, dtype=np.float32)
    name = f"{pad.name}/select"
    value = add_initializer(graph, fresh_name(graph, f"{name}.weight"), weight)
    conv = ir.node(
        "Conv", [source, value], attributes={"kernel_shape": [1, 1], "strides": list(strides)}, name=name, num_outputs=1
    )
    graph.insert_before(pad, conv)
    take_place(pad.outputs[0], conv.outputs[0])
    graph.remove(pad, safe=True)
