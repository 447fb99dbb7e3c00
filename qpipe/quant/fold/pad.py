"""A zero Pad before Conv becomes the Conv's own padding, which integer kernels fill with the zero point."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qpipe.quant.graph import attr_ints, attr_string, constant, input_at, rank_of


def fold_pads(graph: ir.Graph) -> int:
    """Fold zero Pads of spatial axes into the Convs that read them; how many Convs."""
    done = 0
    for node in list(graph):
        if node.op_type != "Conv":
            continue
        source = node.inputs[0]
        pad = source.producer() if source is not None else None
        if pad is None or pad.op_type != "Pad" or pad.graph is not graph:
            continue
        pads = spatial_pads(pad)
        if pads is None or attr_string(node, "auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
            continue
        own = attr_ints(node, "pads", (0,) * len(pads))
        total = [int(mine + more) for mine, more in zip(own, pads, strict=True)]
        node.attributes["pads"] = ir.AttrInt64s("pads", total)
        node.attributes.pop("auto_pad", None)
        node.replace_input_with(0, pad.inputs[0])
        done += 1
    return done


def all_pads(pad: ir.Node) -> tuple[int, ...] | None:
    """(begin of each axis, end of each axis) of a zero Pad with constant pads, or None."""
    data = pad.inputs[0]
    rank = rank_of(data) if data is not None else None
    pads = constant(input_at(pad, 1))
    value = constant(pad.inputs[2]) if input_at(pad, 2) is not None else np.zeros(())
    if rank is None or pads is None or value is None or np.any(value != 0):
        return None
    if attr_string(pad, "mode", "constant") != "constant" or np.any(np.asarray(pads, np.int64) < 0):
        return None
    axes = _axes(pad, rank)
    if axes is None:
        return None
    full = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        full[axis] = int(pads[place])
        full[rank + axis] = int(pads[len(axes) + place])
    return tuple(full)


def _axes(pad: ir.Node, rank: int) -> list[int] | None:
    if input_at(pad, 3) is None:
        return list(range(rank))
    axes = constant(pad.inputs[3])
    return None if axes is None else [int(axis) % rank for axis in axes.reshape(-1)]


def spatial_pads(pad: ir.Node) -> tuple[int, ...] | None:
    """Pads of the spatial axes in Conv's order (begins, then ends), or None where other axes are padded too."""
    full = all_pads(pad)
    if full is None:
        return None
    rank = len(full) // 2
    if any(full[place] for place in (0, 1, rank, rank + 1)):
        return None
    return full[2:rank] + full[rank + 2 :]
