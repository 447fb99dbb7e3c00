"""Which nodes pay for being quantized: one at a time, and greedily back to float until the result is good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.corrections.bias import correct_bias
from qpipe.quant.options import QuantOptions
from qpipe.quant.plan import make_plan
from qpipe.quant.rendering.render import render_into
from qpipe.records.quantization import NodeChoice, QuantPlan
from qpipe.records.scheme import Scheme

STRIDE = 8
"""Every eighth node is scored first: where time is short, a part of the graph is not left out."""
Score = Callable[[ir.Model], float]
"""How good a Q/DQ graph is; larger is better (SQNR in dB on the search set, or its metric)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The score of the graph in which this node alone runs on integers."""

    node: str
    op: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverted:
    """What greedy reverting found."""

    options: QuantOptions
    score: float
    nodes: tuple[str, ...]
    """Nodes that went back to float, worst first."""
    reached: bool
    """Whether the wanted score was reached."""


def build(model: ir.Model, statistics: Statistics, scheme: Scheme, options: QuantOptions) -> tuple[ir.Model, QuantPlan]:
    """(Q/DQ graph, plan) of a float graph with these options; the graph that is given stays as it is."""
    copy = model.clone()
    plan = make_plan(copy, statistics, scheme, options)
    correct_bias(copy, plan, statistics)
    return render_into(copy, plan), plan


def weighted_nodes(
    model: ir.Model, statistics: Statistics, scheme: Scheme, options: QuantOptions
) -> tuple[NodeChoice, ...]:
    """What these options quantize and what has weights, in graph order."""
    plan = make_plan(model.clone(), statistics, scheme, options)
    return tuple(choice for choice in plan.nodes if choice.quantized and choice.op in scheme.ops)


def sensitivity(
    model: ir.Model,
    statistics: Statistics,
    scheme: Scheme,
    score: Score,
    options: QuantOptions | None = None,
    *,
    over: Callable[[], bool] = lambda: False,
) -> tuple[Sensitivity, ...]:
    """Quantize each weighted node alone and score the result; the most sensitive node comes first.

    Once `over` says so the rest are left out: those that were scored lie all over the graph.
    """
    options = options or QuantOptions()
    weighted = weighted_nodes(model, statistics, scheme, options)
    names = frozenset(choice.node for choice in weighted)
    found: list[Sensitivity] = []
    for choice in (choice for start in range(STRIDE) for choice in weighted[start::STRIDE]):
        if over():
            break
        alone = replace(options, others=names - {choice.node})
        found.append(
            Sensitivity(node=choice.node, op=choice.op, score=score(build(model, statistics, scheme, alone)[0]))
        )
    return tuple(sorted(found, key=lambda item: item.score))


def revert_worst(
    model: ir.Model,
    statistics: Statistics,
    scheme: Scheme,
    score: Score,
    *,
    wanted: float,
    most: int,
    options: QuantOptions | None = None,
) -> Reverted:
    """Take the most sensitive nodes back to float, one after the other, until `wanted` is reached or `most` went back.

    A node whose return does not raise the score stays quantized.
    """
    current = options or QuantOptions()
    best = score(build(model, statistics, scheme, current)[0])
    gone: list[str] = []
    ranking = sensitivity(model, statistics, scheme, score, current) if best < wanted and most > 0 else ()
    for item in ranking[: max(most, 0)]:
        if best >= wanted:
            break
        tried = replace(current, keep_float=(*current.keep_float, escape(item.node)))
        result = score(build(model, statistics, scheme, tried)[0]) if len(gone) + 1 < len(ranking) else best
        if result > best:
            current, best = tried, result
            gone.append(item.node)
    return Reverted(options=current, score=best, nodes=tuple(gone), reached=best >= wanted)


def escape(name: str) -> str:
    """A node's name as a pattern that matches it alone."""
    plain = name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
    return f"[{plain[0]}]{plain[1:]}" if plain == "stem" or plain.startswith("op:") else plain
