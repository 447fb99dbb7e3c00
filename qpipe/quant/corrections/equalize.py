"""Cross-layer equalization: scale a layer's output channels down and the next layer's input channels up, or back.

f(s·x) = s·f(x) for s > 0 holds for Relu, not for Clip at 6: pairs with a bounded Clip between them stay as they are.
Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qpipe.quant.edits import replace_constant, set_bias
from qpipe.quant.fold.affine import spread
from qpipe.quant.graph import attr_int, constant, input_at, name_of, only_consumer
from qpipe.quant.numbers import F64
from qpipe.quant.operators import WEIGHTED, clip_bounds, is_plain, is_transposed, out_channels

ROUNDS = 20
"""Passes over all pairs at most; a middle layer belongs to two of them."""
SETTLED = 1e-3
"""Largest relative change of a factor in the last pass."""
LIMIT = 2.0**8
"""Factors stay within 1/LIMIT and LIMIT, so that float32 sums keep their digits."""
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "Identity"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two weighted nodes with nothing between them but what lets a positive factor through."""

    first: ir.Node
    second: ir.Node
    channels: int
    """Output channels of the first."""
    repeat: int
    """Inputs of the second that each channel feeds: more than one after Flatten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalized:
    """One pair that was scaled, and the smallest and largest factor."""

    first: str
    second: str
    smallest: float
    largest: float


def equalize(model: ir.Model, ranges: Mapping[str, F64] | None = None) -> tuple[Equalized, ...]:
    """Scale all pairs in place; the float outputs stay what they are.

    Without `ranges` the factor of channel i is √(r₁ᵢ / r₂ᵢ), r being the largest magnitude of the weights that write it
    and that read it (equation 11). With `ranges` (tensor that the second node reads → largest magnitude per channel,
    [C]) these stand for r₁: what is made even is then the activation, which is quantized per tensor, with the weights.
    """
    found = pairs(model.graph)
    if ranges is not None:
        found = [pair for pair in found if _range(pair, ranges) is not None]
    factors = [np.ones(pair.channels) for pair in found]
    for _ in range(ROUNDS):
        change = 0.0
        for number, pair in enumerate(found):
            known = None if ranges is None else _range(pair, ranges)
            step = _step(pair, None if known is None else known / factors[number], factors[number])
            _scale(model.graph, pair, step)
            factors[number] = factors[number] * step
            change = max(change, float(np.abs(step - 1).max()))
        if change < SETTLED:
            break
    return tuple(
        Equalized(
            first=pair.first.name or "",
            second=pair.second.name or "",
            smallest=float(factor.min()),
            largest=float(factor.max()),
        )
        for pair, factor in zip(found, factors, strict=True)
        if np.any(factor != 1)
    )


def pairs(graph: ir.Graph) -> list[Pair]:
    """All pairs of weighted nodes of the main graph between which positive factors pass."""
    found = []
    for node in graph:
        if _takes_factor(node) and (pair := _pair(graph, node)) is not None:
            found.append(pair)
    return found


def _takes_factor(node: ir.Node) -> bool:
    """Whether the output channels of a node can be scaled through its constants."""
    if node.op_type not in WEIGHTED or not is_plain(node):
        return False
    weight = constant(node.inputs[1])
    return weight is not None and (node.op_type != "MatMul" or weight.ndim == 2)


def _pair(graph: ir.Graph, first: ir.Node) -> Pair | None:
    spatial, value = first.op_type in _CONVOLUTIONS, first.outputs[0]
    flat = not spatial
    while (after := only_consumer(value, graph)) is not None and after.inputs[0] is value:
        if after.op_type in WEIGHTED:
            return _joined(first, after, flat=flat)
        if after.op_type == "Flatten" and spatial and not flat and attr_int(after, "axis", 1) == 1:
            flat = True
        elif not (after.op_type in _HOMOGENEOUS or _is_relu(after) or (after.op_type in _POOLS and not flat)):
            return None
        value = after.outputs[0]
    return None


def _is_relu(node: ir.Node) -> bool:
    return node.op_type == "Clip" and clip_bounds(node) == (0.0, np.inf)


def _joined(first: ir.Node, second: ir.Node, *, flat: bool) -> Pair | None:
    weight = constant(second.inputs[1])
    if weight is None or (second.op_type in _CONVOLUTIONS) == flat or attr_int(second, "transA", 0):
        return None
    if second.op_type == "MatMul" and weight.ndim != 2:
        return None
    channels, inputs = out_channels(first), _readings(second).size
    if not channels or inputs % channels or (inputs != channels and first.op_type not in _CONVOLUTIONS):
        return None
    if inputs != channels and not flat:
        return None
    return Pair(first=first, second=second, channels=channels, repeat=inputs // channels)


def _range(pair: Pair, ranges: Mapping[str, F64]) -> F64 | None:
    """Magnitude of each of the first node's channels where the second reads them."""
    data = pair.second.inputs[0]
    found = ranges.get(name_of(data)) if data is not None else None
    if found is None or found.size != pair.channels * pair.repeat:
        return None
    largest: F64 = found.reshape(pair.channels, pair.repeat).max(axis=1)
    return largest if np.isfinite(largest).all() else None


def _step(pair: Pair, written: F64 | None, done: F64) -> F64:
    """What each output channel of the first node is to be divided by, beyond what was `done`."""
    one = _writings(pair.first) if written is None else written
    two = _readings(pair.second).reshape(pair.channels, pair.repeat).max(axis=1)
    step = np.ones(pair.channels)
    usable = (one > 0) & (two > 0)
    step[usable] = np.sqrt(one[usable] / two[usable])
    return np.asarray(np.clip(done * step, 1 / LIMIT, LIMIT) / done, np.float64)


def _writings(node: ir.Node) -> F64:
    """Largest magnitude of the weights of each output channel."""
    rows = 0 if node.op_type == "Conv" or is_transposed(node) else 1
    return _largest(node, None if node.op_type == "ConvTranspose" else rows)


def _readings(node: ir.Node) -> F64:
    """Largest magnitude of the weights that read each input channel."""
    columns = 1 if is_transposed(node) else 0
    return _largest(node, None if node.op_type == "Conv" else columns)


def _largest(node: ir.Node, axis: int | None) -> F64:
    """Largest magnitude of the weights along an axis; None: along axis 1 of each group."""
    weight = np.abs(np.asarray(constant(node.inputs[1]), np.float64))
    if axis is not None:
        return np.asarray(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).max(axis=1))
    group = attr_int(node, "group", 1)
    parts = weight.reshape(group, weight.shape[0] // group, weight.shape[1], -1)
    return np.asarray(parts.max(axis=(1, 3)).reshape(-1))


def _scale(graph: ir.Graph, pair: Pair, step: F64) -> None:
    first, second = pair.first, pair.second
    weight = np.asarray(constant(first.inputs[1]), np.float64) / spread(first, step)
    replace_constant(graph, first, 1, weight.astype(np.float32))
    bias = constant(input_at(first, 2))
    if bias is not None:
        set_bias(graph, first, (np.broadcast_to(np.asarray(bias, np.float64), step.shape) / step).astype(np.float32))
    reading = np.asarray(constant(second.inputs[1]), np.float64) * _spread_inputs(second, np.repeat(step, pair.repeat))
    replace_constant(graph, second, 1, reading.astype(np.float32))


def _spread_inputs(node: ir.Node, per_input: F64) -> F64:
    """One number per input channel, shaped to multiply the node's weights."""
    weight = constant(node.inputs[1])
    assert weight is not None
    if node.op_type == "Conv":
        group = attr_int(node, "group", 1)
        rows = np.repeat(per_input.reshape(group, -1), weight.shape[0] // group, axis=0)
        return rows.reshape(rows.shape + (1,) * (weight.ndim - 2))
    if is_transposed(node):
        return per_input.reshape(1, -1)
    return per_input.reshape((-1,) + (1,) * (weight.ndim - 1))
