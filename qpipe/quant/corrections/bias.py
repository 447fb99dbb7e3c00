"""Analytic bias correction: take back the mean shift that rounding the weights gives to each output channel.

Δb = −(W_q − W)·E[x], with E[x] from the calibration pass.
Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2. At zero-padded borders fewer taps meet data: there E[x] is
scaled by the share of output positions at which each tap does.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qpipe.quant.calibration.statistics import Statistics, TensorStatistics
from qpipe.quant.edits import replace_constant, set_bias
from qpipe.quant.graph import attr_int, attr_ints, attr_string, constant, input_at, name_of, only_consumer
from qpipe.quant.numbers import F32, F64
from qpipe.quant.operators import is_plain, is_transposed
from qpipe.quant.rendering.render import quantized_weight
from qpipe.quant.rendering.tables import is_table
from qpipe.records.quantization import QuantPlan


def correct_bias(model: ir.Model, plan: QuantPlan, statistics: Statistics) -> tuple[str, ...]:
    """Move the biases of quantized Conv, Gemm and MatMul + Add so that their mean outputs match float; in place.

    Returns the names of the nodes that were corrected: those without a bias get one. Weights that several nodes share
    are corrected node by node.
    """
    everyone = frozenset(node.name for node in model.graph if node.name)
    return _move(model, plan, statistics, everyone, sign=-1.0)


def take_back(model: ir.Model, plan: QuantPlan, statistics: Statistics, names: frozenset[str]) -> None:
    """Undo the correction of nodes whose weights stay float after all, in place.

    That is exact where these statistics have the means that the correction was made with.
    """
    _move(model, plan, statistics, names, sign=1.0)


def _move(
    model: ir.Model, plan: QuantPlan, statistics: Statistics, names: frozenset[str], *, sign: float
) -> tuple[str, ...]:
    """Add the mean shift of the nodes' outputs, times `sign`, to their biases; the nodes where that could be done."""
    moved: list[str] = []
    nodes = {node.name: node for node in model.graph}
    for spec in plan.weights:
        readers = [nodes[name] for name in spec.nodes if name in nodes]
        if names.isdisjoint(spec.nodes) or not readers or is_table(spec, nodes):
            continue
        weight = np.asarray(constant(readers[0].inputs[1]), np.float32)
        error = quantized_weight(readers, spec, plan).real(spec.axis) - weight
        for node in readers:
            shift = _shift(node, error, statistics) if node.name in names else None
            if shift is not None and _apply(model.graph, node, sign * shift):
                moved.append(node.name or "")
    return tuple(moved)


def _shift(node: ir.Node, error: F32, statistics: Statistics) -> F64 | None:
    """Expected change of each output channel, [C], or None where channel means are not known."""
    item = statistics.get(name_of(node.inputs[0])) if node.inputs[0] is not None else None
    if item is None or item.axis is None or not np.isfinite(item.mean).all():
        return None
    if node.op_type == "Conv":
        return _conv_shift(node, error, item)
    if node.op_type == "ConvTranspose" or item.axis != -1:
        return None
    rows = error.T if is_transposed(node) else error
    if rows.ndim != 2 or rows.shape[0] != item.mean.size:
        return None
    shift: F64 = item.mean @ rows.astype(np.float64)
    return shift


def _conv_shift(node: ir.Node, error: F32, item: TensorStatistics) -> F64 | None:
    group = attr_int(node, "group", 1)
    if item.axis != 1 or item.mean.size != error.shape[1] * group:
        return None
    taps = _tap_shares(node, error.shape[2:], item.shape[2:])
    per_input = (error * taps).sum(axis=tuple(range(2, error.ndim))).astype(np.float64)
    means = item.mean.reshape(group, -1)
    shift: F64 = np.einsum("goi,gi->go", per_input.reshape(group, -1, error.shape[1]), means).reshape(-1)
    return shift


def _tap_shares(node: ir.Node, kernel: tuple[int, ...], sizes: tuple[int, ...]) -> F64:
    """For each tap of the kernel, the share of output positions at which it meets data rather than padding."""
    rank = len(kernel)
    pads = attr_ints(node, "pads", (0,) * (2 * rank))
    strides, dilations = attr_ints(node, "strides", (1,) * rank), attr_ints(node, "dilations", (1,) * rank)
    shares = np.ones(kernel)
    if attr_string(node, "auto_pad", "NOTSET") not in {"NOTSET", "VALID"} or len(sizes) != rank:
        return shares
    for axis in range(rank):
        span = (kernel[axis] - 1) * dilations[axis] + 1
        count = (sizes[axis] + pads[axis] + pads[rank + axis] - span) // strides[axis] + 1
        starts = np.arange(max(count, 1)) * strides[axis] - pads[axis]
        places = starts[:, None] + np.arange(kernel[axis])[None, :] * dilations[axis]
        inside = ((places >= 0) & (places < sizes[axis])).mean(axis=0)
        shares = shares * inside.reshape([-1 if place == axis else 1 for place in range(rank)])
    return shares


def _apply(graph: ir.Graph, node: ir.Node, delta: F64) -> bool:
    if node.op_type == "MatMul":
        return _apply_after(graph, node, delta)
    if not is_plain(node):
        return False
    bias = constant(input_at(node, 2))
    old = np.zeros(1) if bias is None else np.asarray(bias, np.float64).reshape(-1)
    set_bias(graph, node, (old + delta).astype(np.float32))
    return True


def _apply_after(graph: ir.Graph, node: ir.Node, delta: F64) -> bool:
    """MatMul has no bias: move the constant of the Add that follows, where there is one."""
    add = only_consumer(node.outputs[0], graph)
    if add is None or add.op_type != "Add":
        return False
    index = 1 if add.inputs[0] is node.outputs[0] else 0
    bias = constant(add.inputs[index])
    if bias is None or bias.shape != delta.shape:
        return False
    replace_constant(graph, add, index, (np.asarray(bias, np.float64) + delta).astype(np.float32))
    return True
