"""Which nodes pay for being quantized: groups of them run on integers alone, and the noisiest are halved.

Noise of groups adds up nearly (ResNet-20, a depthwise network, MiniLM: pairs 0.6 to 1.2 of their sum), so a quiet group
hides no loud node: a few runs of the whole graph tell the worst of hundreds of nodes.
Source: binary splitting, Du and Hwang, Combinatorial Group Testing and Its Applications (2000), section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import heappop, heappush

import onnx_ir as ir

from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.corrections.bias import correct_bias
from qpipe.quant.options import QuantOptions
from qpipe.quant.plan import make_plan
from qpipe.quant.rendering.render import render_into
from qpipe.records.quantization import STEM, QuantPlan
from qpipe.records.scheme import Scheme

GROUPS = 32
"""Groups that are looked at first: up to so many nodes each is one by itself."""
SINGLES, HALVED = 8, 32
"""So many of the worst nodes are told apart one by one, while no more groups than this were halved: where hundreds of
nodes cost alike there is nobody to find. What stays in groups shares their noise."""
STRIDE = 8
"""Every eighth group comes first: where time is short, a part of the graph is not left out."""
TOGETHER = 2.0
"""Noise of all nodes over the sum of what groups make alone, from which it counts what each makes beside the others."""
Score = Callable[[ir.Model], float]
"""SQNR in dB of a Q/DQ graph's outputs; infinity where they are the float model's, minus infinity where not finite."""
Group = tuple[str, ...]
Noise = Callable[[Group], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What integers in one node cost: noise power over signal power, or its share of its group's."""

    node: str
    noise: float


def build(model: ir.Model, statistics: Statistics, scheme: Scheme, options: QuantOptions) -> tuple[ir.Model, QuantPlan]:
    """(Q/DQ graph, plan) of a float graph with these options; the graph that is given stays as it is."""
    copy = model.clone()
    plan = make_plan(copy, statistics, scheme, options)
    correct_bias(copy, plan, statistics)
    return render_into(copy, plan), plan


def quantized_nodes(model: ir.Model, statistics: Statistics, scheme: Scheme, options: QuantOptions) -> Group:
    """Weighted operators, and lookups in tables, that these options quantize, in graph order."""
    plan = make_plan(model.clone(), statistics, scheme, options)
    chosen = {choice.node for choice in plan.nodes if choice.quantized and choice.op in scheme.ops}
    chosen.update(name for spec in plan.weights for name in spec.nodes)
    return tuple(node.name for node in model.graph.all_nodes() if node.name in chosen and node.name)


def sensitivity(
    model: ir.Model,
    statistics: Statistics,
    scheme: Scheme,
    score: Score,
    options: QuantOptions | None = None,
    *,
    over: Callable[[], bool] = lambda: False,
) -> tuple[Sensitivity, ...]:
    """Nodes by what integers in them cost, the most sensitive first.

    Nodes alone on integers are looked at; where all together make far more noise than that, errors compound: then
    what counts is the noise that goes where a node goes back to float. Once `over` says so groups that were not looked
    at are left out: the others lie all over the graph.
    """
    options = options or QuantOptions()
    names = quantized_nodes(model, statistics, scheme, options)

    def noise(group: Group) -> float:
        kept = options.others | (frozenset(names) - frozenset(group))
        return float(10 ** (-score(build(model, statistics, scheme, replace(options, others=kept))[0]) / 10))

    found = _worst_first(names, noise, over)
    if len(found) < len(names) or len(names) < 2 or over():
        return found
    whole = noise(names)
    if not whole > TOGETHER * sum(one.noise for one in found):
        return found

    def relief(group: Group) -> float:
        left = noise(tuple(name for name in names if name not in group))
        return whole - left if left < whole else 0.0

    again = _worst_first(names, relief, over)
    return again if len(again) == len(names) else found


def _worst_first(names: Group, noise: Noise, over: Callable[[], bool]) -> tuple[Sensitivity, ...]:
    """Groups of neighbours, the noisiest one halved again and again until the worst nodes stand by themselves."""
    size = -(-len(names) // GROUPS) or 1
    groups = [names[start : start + size] for start in range(0, len(names), size)]
    heap: list[tuple[float, int, Group]] = []
    for group in (group for start in range(STRIDE) for group in groups[start::STRIDE]):
        if over():
            break
        heappush(heap, (-noise(group), names.index(group[0]), group))
    singles: list[tuple[float, int, Group]] = []
    halved = 0
    while heap and len(singles) < SINGLES and halved < HALVED and not over():
        worst = heappop(heap)
        _, place, group = worst
        if len(group) == 1:
            singles.append(worst)
            continue
        halved, middle = halved + 1, len(group) // 2
        for part, start in ((group[:middle], place), (group[middle:], place + middle)):
            heappush(heap, (-noise(part), start, part))
    rest = sorted(heap, key=lambda one: (one[0] / len(one[2]), one[1]))
    return tuple(
        Sensitivity(node=name, noise=-negative / len(group))
        for negative, _, group in (*singles, *rest)
        for name in group
    )


def escape(name: str) -> str:
    """A node's name as a pattern that matches it alone."""
    plain = name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
    return f"[{plain[0]}]{plain[1:]}" if plain == STEM or plain.startswith("op:") else plain
