"""Where Q/DQ pairs stand: which nodes run on integers under a scheme, and which tensors that quantizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir

from qpipe.quant.graph import constant, is_float, name_of, only_consumer, top_consumers
from qpipe.quant.operators import WEIGHTED, clip_bounds, refusal
from qpipe.records.quantization import NodeChoice
from qpipe.records.scheme import Scheme

_ALONE = frozenset({"Sigmoid", "HardSwish", "HardSigmoid", "Tanh", "Softmax", "PRelu", "Elu", "Abs", "ReduceMean"})
"""Elementwise operators whose kernels take no activation."""
Keep = Callable[[ir.Node], str]
"""Why a node must stay float, or an empty string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A Q/DQ pair on one tensor: read by all (`consumers` empty), or by the named nodes alone."""

    tensor: str
    consumers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """A quantized tensor whose quantizer replaces Relu or Clip: its range must lie within these."""

    tensor: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The placement of one graph under one scheme."""

    nodes: tuple[NodeChoice, ...]
    pairs: tuple[Pair, ...]
    passes: tuple[tuple[str, str], ...] = ()
    """(input, output) of operators that keep values as they are: both share parameters."""
    joins: tuple[tuple[str, ...], ...] = ()
    """Inputs and output of each Concat: they share parameters where bounds allow."""
    bounds: tuple[Bounds, ...] = ()


@dataclass(slots=True)
class _Draft:
    """The placement while it is found; dicts without values are sets that keep the graph's order."""

    graph: ir.Graph
    scheme: Scheme
    choices: dict[ir.Node, NodeChoice] = field(default_factory=dict)
    weighted: dict[ir.Node, None] = field(default_factory=dict)
    """Nodes of the scheme's `ops` that run on integers."""
    active: dict[ir.Node, None] = field(default_factory=dict)
    """Operators between them that may run on integers too."""
    spans: dict[ir.Node, tuple[ir.Node, float, float]] = field(default_factory=dict)
    """Producer → (Relu or Clip that its quantizer can replace, low, high)."""


def lay_out(graph: ir.Graph, scheme: Scheme, keep: Keep = lambda _: "") -> Layout:
    """Decide which nodes run on integers. `keep` names nodes that must stay float, with the reason."""
    draft = _Draft(graph, scheme)
    for node in graph:
        if node.op_type in scheme.ops:
            reason = keep(node) or refusal(node, scheme)
            draft.choices[node] = _choice(node, reason)
            if not reason:
                draft.weighted[node] = None
    _choose_subgraphs(draft)
    if not scheme.quantize_outputs:
        return _inputs_only(draft, keep)
    _grow(draft, keep)
    return _around(draft)


def _choice(node: ir.Node, reason: str, absorbed_into: str = "") -> NodeChoice:
    return NodeChoice(
        node=node.name or "", op=node.op_type, quantized=not reason, reason=reason, absorbed_into=absorbed_into
    )


def _choose_subgraphs(draft: _Draft) -> None:
    for node in draft.graph.all_nodes():
        if node.graph is not draft.graph and node.op_type in draft.scheme.ops:
            draft.choices[node] = _choice(node, "inside a subgraph (If, Loop or Scan), which stays float")


def _data_inputs(node: ir.Node) -> list[ir.Value]:
    """Float inputs that carry activations: all for joins and elementwise operators, the first for the others."""
    if node.op_type in {"Concat", "Add", "Mul", "Sub", "Div"}:
        return [value for value in node.inputs if value is not None]
    if node.op_type == "MatMul" and constant(node.inputs[1]) is None:
        return [value for value in node.inputs if value is not None]
    return [value for value in node.inputs[:1] if value is not None]


def _grow(draft: _Draft, keep: Keep) -> None:
    """Find the operators between integer neighbours: start from all candidates and drop what does not fit."""
    scheme = draft.scheme
    kinds = {*scheme.passthrough_ops, *scheme.joining_ops, *scheme.elementwise_ops}
    draft.choices |= {
        node: _choice(node, reason) for node in draft.graph if node.op_type in kinds and (reason := keep(node))
    }
    draft.active = {
        node: None
        for node in draft.graph
        if node.op_type in kinds
        and not keep(node)
        and all(is_float(value) for value in _data_inputs(node))
        and not _is_bias(draft, node)
    }
    draft.spans = _spans(draft)
    while True:
        kept = {
            node: None
            for node in draft.active
            if all(_available(draft, node, value) for value in _data_inputs(node))
            and any(_wanted(draft, value) for value in _written(draft, node))
        }
        if len(kept) == len(draft.active):
            return
        draft.active = kept


def _is_bias(draft: _Draft, node: ir.Node) -> bool:
    """Whether this Add is the bias of a weighted operator with a float output, whose kernel takes it."""
    if node.op_type != "Add" or not any(value is not None and value.is_initializer() for value in node.inputs):
        return False
    producers = [value.producer() for value in node.inputs if value is not None]
    return any(one in draft.weighted and one.op_type in draft.scheme.float_output_ops for one in producers if one)


def _spans(draft: _Draft) -> dict[ir.Node, tuple[ir.Node, float, float]]:
    if not draft.scheme.absorb_relu or draft.scheme.activation_symmetric:
        return {}
    able = {*draft.scheme.ops, *draft.scheme.elementwise_ops} - _ALONE
    found = {}
    for node in draft.graph:
        if node.op_type in able and (span := _span(draft.graph, node)) is not None:
            found[node] = span
    return found


def _span(graph: ir.Graph, node: ir.Node) -> tuple[ir.Node, float, float] | None:
    after = only_consumer(node.outputs[0], graph)
    if after is None:
        return None
    if after.op_type == "Relu":
        return after, 0.0, float("inf")
    if after.op_type != "Clip" or after.inputs[0] is not node.outputs[0]:
        return None
    bounds = clip_bounds(after)
    return (after, *bounds) if bounds is not None and bounds[0] <= 0 <= bounds[1] else None


def _written(draft: _Draft, node: ir.Node) -> list[ir.Value]:
    """The tensors that an integer kernel of this node writes: past an absorbed Relu or Clip."""
    span = draft.spans.get(node)
    return list(span[0].outputs) if span else list(node.outputs)


def _readers(draft: _Draft, value: ir.Value) -> list[ir.Node]:
    """Nodes that read the value as integers."""
    nodes = top_consumers(value, draft.graph) or [use.node for use in value.uses() if use.node.graph is draft.graph]
    chosen = (node for node in nodes if node in draft.weighted or node in draft.active)
    return [node for node in chosen if any(data is value for data in _data_inputs(node))]


def _wanted(draft: _Draft, value: ir.Value) -> bool:
    return bool(_readers(draft, value))


def _integer_output(draft: _Draft, value: ir.Value) -> bool:
    """Whether the value's producer writes integers, so that every reader sees the quantized value."""
    node = value.producer()
    if node is None:
        return False
    if node.op_type in {"Relu", "Clip"} and node.inputs[0] is not None:
        origin = node.inputs[0].producer()
        if origin is None or draft.spans.get(origin, (None,))[0] is not node:
            return False
        node = origin
    if node in draft.active:
        return any(value is written for written in _written(draft, node))
    if node not in draft.weighted or not any(value is written for written in _written(draft, node)):
        return False
    if node.op_type not in draft.scheme.float_output_ops:
        return True
    nodes = top_consumers(value, draft.graph)
    return bool(nodes) and not value.is_graph_output() and len(_readers(draft, value)) == len(nodes or ())


def _available(draft: _Draft, node: ir.Node, value: ir.Value) -> bool:
    """Whether integers of this tensor exist anyway when the node reads it."""
    if value.is_initializer():
        return node.op_type not in draft.scheme.passthrough_ops and value.dtype == ir.DataType.FLOAT
    if _integer_output(draft, value):
        return True
    return any(reader in draft.weighted for reader in _readers(draft, value))


def _around(draft: _Draft) -> Layout:
    pairs: dict[str, Pair] = {}
    bounds: list[Bounds] = []
    for value in _float_values(draft.graph):
        if _integer_output(draft, value):
            pairs[name_of(value)] = Pair(tensor=name_of(value))
        elif readers := _readers(draft, value):
            names = tuple(sorted({node.name or "" for node in readers}))
            pairs[name_of(value)] = Pair(tensor=name_of(value), consumers=names)
    for node, (after, low, high) in draft.spans.items():
        tensor = name_of(after.outputs[0])
        if (node in draft.weighted or node in draft.active) and _integer_output(draft, after.outputs[0]):
            bounds.append(Bounds(tensor=tensor, low=low, high=high))
            draft.choices[after] = _choice(after, "", absorbed_into=node.name or "")
    for node in draft.active:
        draft.choices[node] = _choice(node, "")
    passes, joins = _shared(draft)
    order = {node: number for number, node in enumerate(draft.graph.all_nodes())}
    nodes = tuple(draft.choices[node] for node in sorted(draft.choices, key=order.__getitem__))
    return Layout(nodes=nodes, pairs=tuple(pairs.values()), passes=passes, joins=joins, bounds=tuple(bounds))


def _float_values(graph: ir.Graph) -> list[ir.Value]:
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    constants = [value for value in graph.initializers.values() if value.dtype == ir.DataType.FLOAT]
    return [value for value in values if is_float(value) and value.name] + constants


def _shared(draft: _Draft) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, ...], ...]]:
    passes: list[tuple[str, str]] = []
    joins: list[tuple[str, ...]] = []
    for node in draft.active:
        inputs = [name_of(value) for value in _data_inputs(node)]
        outputs = [name_of(value) for value in _written(draft, node)]
        if node.op_type in draft.scheme.passthrough_ops:
            passes += [(inputs[0], output) for output in outputs]
        elif node.op_type in draft.scheme.joining_ops:
            joins.append((*inputs, *outputs))
    return tuple(passes), tuple(joins)


def _inputs_only(draft: _Draft, keep: Keep) -> Layout:
    """Pairs on the inputs of weighted operators, and on the residual input of an Add after one of them."""
    readers: dict[str, list[str]] = {}
    for node in draft.weighted:
        for value in _data_inputs(node):
            readers.setdefault(name_of(value), []).append(node.name or "")
    if draft.scheme.residual_inputs:
        for node in draft.graph:
            residual = _residual(draft, node)
            if residual is None or keep(node):
                continue
            if draft.scheme.residual_products or name_of(residual) in readers:
                readers.setdefault(name_of(residual), []).append(node.name or "")
    pairs = tuple(Pair(tensor=tensor, consumers=tuple(dict.fromkeys(names))) for tensor, names in readers.items())
    return Layout(nodes=tuple(draft.choices.values()), pairs=pairs)


def _residual(draft: _Draft, node: ir.Node) -> ir.Value | None:
    """The operand of an Add that comes from elsewhere, where the other is a weighted operator's fused output."""
    if node.op_type != "Add" or any(value is None or value.is_initializer() for value in node.inputs):
        return None
    for index in (0, 1):
        mine, other = node.inputs[index], node.inputs[1 - index]
        assert mine is not None
        if _fused(draft, mine, node):
            assert other is not None
            return other
    return None


def _fused(draft: _Draft, value: ir.Value, reader: ir.Node) -> bool:
    """Whether a weighted operator makes the value for this reader alone: their kernels then stand in one."""
    producer = value.producer()
    made = producer in draft.weighted and producer.op_type in WEIGHTED
    return made and only_consumer(value, draft.graph) is reader
