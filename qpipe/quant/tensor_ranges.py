"""The range of every tensor of a layout: observed, of constants, of pixels; shared where operators demand it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qpipe.quant.calibration.statistics import Statistics, TensorStatistics
from qpipe.quant.graph import constant, name_of
from qpipe.quant.grid import LEVELS
from qpipe.quant.layout import Bounds, Layout
from qpipe.quant.operators import pixel_zero
from qpipe.quant.options import QuantOptions, matches
from qpipe.quant.ranges import RangeRule, clipped_share, find_range
from qpipe.records.quantization import RangeMethod
from qpipe.records.scheme import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRange:
    """What a tensor's integers have to cover, how that was found, and the share of values outside."""

    low: float
    high: float
    method: str
    clipped: float


def find_ranges(
    graph: ir.Graph, layout: Layout, statistics: Statistics, scheme: Scheme, options: QuantOptions
) -> dict[str, TensorRange]:
    """Tensor → range, for all that a layout quantizes except outputs of operators that pass values on: these share."""
    methods = _methods(graph, options)
    kept = {output: source for source, output in layout.passes}
    found = _pixel_ranges(graph)
    for pair in layout.pairs:
        if pair.tensor in kept or pair.tensor in found:
            continue
        value = graph.initializers.get(pair.tensor)
        item = statistics.get(pair.tensor)
        if value is not None:
            found[pair.tensor] = _constant_range(value)
        elif item is not None:
            rule = _rule(scheme, options, methods.get(pair.tensor, options.ranges))
            found[pair.tensor] = _observed_range(item, rule)
    return found


def _pixel_ranges(graph: ir.Graph) -> dict[str, TensorRange]:
    """Pixels: one step to a level, whatever levels the rows had."""
    zeros = {name_of(value): pixel_zero(value) for node in graph for value in node.outputs}
    return {
        name: TensorRange(low=-float(zero), high=float(LEVELS - 1 - zero), method="grid", clipped=0.0)
        for name, zero in zeros.items()
        if zero is not None
    }


def _rule(scheme: Scheme, options: QuantOptions, method: RangeMethod) -> RangeRule:
    levels = 65535 if scheme.activation.endswith("int16") else 255
    return RangeRule(
        method="minmax" if scheme.activation == "float8e4m3fn" else method,
        percentile=options.percentile,
        levels=levels,
        symmetric=scheme.activation_symmetric,
    )


def _methods(graph: ir.Graph, options: QuantOptions) -> dict[str, RangeMethod]:
    found: dict[str, RangeMethod] = {}
    for override in options.overrides:
        if override.ranges is None:
            continue
        for node in graph:
            if matches(override.match, node):
                values = [*node.inputs, *node.outputs]
                found.update({name_of(value): override.ranges for value in values if value is not None})
    return found


def _constant_range(value: ir.Value) -> TensorRange:
    array = np.asarray(constant(value), np.float64)
    return TensorRange(
        low=min(float(array.min()), 0.0), high=max(float(array.max()), 0.0), method="minmax", clipped=0.0
    )


def _observed_range(item: TensorStatistics, rule: RangeRule) -> TensorRange:
    low, high = find_range(item, rule)
    return TensorRange(low=low, high=high, method=rule.method, clipped=clipped_share(item, low, high))


def share_ranges(layout: Layout, ranges: dict[str, TensorRange]) -> dict[str, str]:
    """Tensor → the tensor whose parameters it repeats; `ranges` of Concat groups are widened in place."""
    shares: dict[str, str] = {}
    for source, output in layout.passes:
        shares[output] = shares.get(source, source)
    bounds = {bound.tensor: bound for bound in layout.bounds}
    for join in layout.joins:
        members = list(dict.fromkeys(shares.get(tensor, tensor) for tensor in join))
        if not all(member in ranges for member in members):
            continue
        merged = _envelope([ranges[member] for member in members])
        if all(_allows(bounds.get(tensor), merged) for tensor in _group(members, shares)):
            shares.update(dict.fromkeys(_group(members[1:], shares), members[0]))
            ranges[members[0]] = merged
    return shares


def _group(members: list[str], shares: Mapping[str, str]) -> list[str]:
    return [*members, *(tensor for tensor, source in shares.items() if source in members)]


def _envelope(ranges: list[TensorRange]) -> TensorRange:
    return TensorRange(
        low=min(item.low for item in ranges),
        high=max(item.high for item in ranges),
        method=ranges[0].method,
        clipped=max(item.clipped for item in ranges),
    )


def _allows(bound: Bounds | None, merged: TensorRange) -> bool:
    return bound is None or (merged.low >= bound.low and merged.high <= bound.high)
