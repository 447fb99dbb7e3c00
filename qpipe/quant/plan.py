"""From placement and statistics to a quantization plan: parameters of every tensor, specification of every weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from qpipe.errors import QuantizationError
from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.graph import constant, name_of
from qpipe.quant.layout import Layout, Pair, lay_out
from qpipe.quant.numbers import activation_parameters
from qpipe.quant.operators import channel_axis, finite, infinite_weights
from qpipe.quant.options import QuantOptions, matches
from qpipe.quant.rendering.tables import plan_tables
from qpipe.quant.storage.blocked import plan_blocked
from qpipe.quant.tensor_ranges import TensorRange, find_ranges, share_ranges
from qpipe.records.quantization import ActivationSpec, InputRange, NodeChoice, QuantPlan, WeightSpec
from qpipe.records.scheme import Scheme


def make_plan(
    model: ir.Model, statistics: Statistics, scheme: Scheme, options: QuantOptions | None = None
) -> QuantPlan:
    """Decide what is quantized and how, for one float graph, its statistics and a scheme.

    A node whose activations no calibration row reached, or are infinite, stays float; the plan says so.

    Raises:
        QuantizationError: weights with NaN or infinity (the node is named), or a scheme without integer operators.
    """
    options = options or QuantOptions()
    if not scheme.ops:
        raise QuantizationError(f"scheme {scheme.name!r} has no integer operators", hint="use recipe 'none'")
    graph = model.graph
    blocked = plan_blocked(graph, scheme, options)
    layout, reasons = _usable_layout(graph, statistics, scheme, options, blocked.nodes)
    ranges = find_ranges(graph, layout, statistics, scheme, options)
    shares = share_ranges(layout, ranges)
    activations = tuple(_activation(pair, ranges, shares, scheme) for pair in layout.pairs)
    nodes = tuple(_with_reason(choice, reasons) for choice in layout.nodes)
    own = (*_weights(graph, nodes, scheme, options), *blocked.weights)
    weights = (*own, *plan_tables(graph, scheme, options, own))
    nodes = tuple(replace(one, quantized=True, reason="") if one.node in blocked.nodes else one for one in nodes)
    pixels = [one for pair in activations if pair.method == "grid" for one in pair.consumers]
    said = (f"pixels are quantized on their own grid, without loss: {', '.join(pixels)}",) if pixels else ()
    notes = (f"calibrated on {statistics.rows} rows", *said, *blocked.notes)
    return QuantPlan(
        scheme=scheme,
        mode="static",
        activations=activations,
        weights=weights,
        nodes=nodes,
        notes=notes,
        inputs=tuple(
            InputRange(name=one.name, low=one.low, high=one.high, narrowest=one.narrowest) for one in statistics.inputs
        ),
    )


def _with_reason(choice: NodeChoice, reasons: Mapping[str, str]) -> NodeChoice:
    return replace(choice, reason=reasons[choice.node]) if choice.node in reasons and not choice.quantized else choice


def _usable_layout(
    graph: ir.Graph, statistics: Statistics, scheme: Scheme, options: QuantOptions, blocked: frozenset[str]
) -> tuple[Layout, dict[str, str]]:
    """The placement after every node without usable statistics has been left in float."""
    reasons: dict[str, str] = {}

    def keep(node: ir.Node) -> str:
        if node.name in blocked:
            return "only its weights are quantized (int4 in blocks)"
        return reasons.get(node.name or "", "") or options.keep(node)

    while True:
        layout = lay_out(graph, scheme, keep)
        _refuse_broken(graph, layout)
        bad = _unusable(graph, layout, statistics)
        if not bad:
            return layout, reasons
        reasons.update(bad)


def _refuse_broken(graph: ir.Graph, layout: Layout) -> None:
    chosen = {choice.node for choice in layout.nodes if choice.quantized}
    for node in graph:
        if node.name in chosen and not finite(node):
            raise infinite_weights(node)


def _unusable(graph: ir.Graph, layout: Layout, statistics: Statistics) -> dict[str, str]:
    """Node → reason, for nodes that read or write a tensor without usable statistics."""
    outputs = {output for _, output in layout.passes}
    bad: dict[str, str] = {}
    for pair in layout.pairs:
        item = statistics.get(pair.tensor)
        if pair.tensor in graph.initializers or pair.tensor in outputs or (item is not None and item.finite):
            continue
        why = "was reached by no calibration row" if item is None else "has an infinite or NaN range"
        bad.update(dict.fromkeys(_around(graph, layout, pair), f"tensor {pair.tensor!r} {why}"))
    return bad


def _around(graph: ir.Graph, layout: Layout, pair: Pair) -> list[str]:
    absorbed = {choice.node: choice.absorbed_into for choice in layout.nodes if choice.absorbed_into}
    names = list(pair.consumers)
    for node in graph:
        reads = any(value is not None and value.name == pair.tensor for value in node.inputs)
        writes = any(value.name == pair.tensor for value in node.outputs)
        if writes or (reads and not pair.consumers):
            names += [node.name or "", absorbed.get(node.name or "", node.name or "")]
    return names


def _activation(
    pair: Pair, ranges: Mapping[str, TensorRange], shares: Mapping[str, str], scheme: Scheme
) -> ActivationSpec:
    source = shares.get(pair.tensor, pair.tensor)
    found = ranges[source]
    scale, zero_point = activation_parameters(
        found.low, found.high, scheme.activation, symmetric=scheme.activation_symmetric
    )
    return ActivationSpec(
        tensor=pair.tensor,
        dtype=scheme.activation,
        low=found.low,
        high=found.high,
        scale=scale,
        zero_point=zero_point,
        shares="" if source == pair.tensor else source,
        consumers=pair.consumers,
        method=found.method,
        clipped=found.clipped,
    )


def _weights(
    graph: ir.Graph, nodes: tuple[NodeChoice, ...], scheme: Scheme, options: QuantOptions
) -> tuple[WeightSpec, ...]:
    chosen = {choice.node for choice in nodes if choice.quantized}
    found: dict[tuple[str, int | None], WeightSpec] = {}
    for node in graph:
        if node.name not in chosen or node.op_type not in scheme.ops or constant(node.inputs[1]) is None:
            continue
        weight = node.inputs[1]
        assert weight is not None
        axis = channel_axis(node) if _per_channel(node, scheme, options) else None
        key = (name_of(weight), axis)
        known = found.get(key)
        found[key] = WeightSpec(
            tensor=key[0],
            dtype=scheme.weight,
            bits=scheme.weight_bits,
            symmetric=scheme.weight_symmetric,
            axis=axis,
            method=options.weights,
            nodes=(*(known.nodes if known else ()), node.name or ""),
        )
    return tuple(found.values())


def _per_channel(node: ir.Node, scheme: Scheme, options: QuantOptions) -> bool:
    wanted = [
        item.per_channel for item in options.overrides if matches(item.match, node) and item.per_channel is not None
    ]
    return wanted[-1] if wanted else scheme.per_channel
