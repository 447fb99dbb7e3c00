"""The answers of `qpipe explain` in a line each: what its loss comes from, and what runs in which kernels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from qpipe.records.engine import FloatNode, Placement
from qpipe.records.explanation import Explanation, Layer, Step
from qpipe.report.insight import worst_first
from qpipe.report.table import number

MUCH_DB = 3.0
"""Half of the noise is twice the other half from here on: what is worse by so much stands out."""
NAMED = 3
_RANGES = ("other-inputs", "other-rows")
_CONVERTS = re.compile(r"(?<!Conv)Transpose|[Qq]uantizeLinear|Cast|Reorder|Convert|QUANTIZE|TRANSPOSE(?!_CONV)")
"""In names of operators and kernels; a transposed convolution converts nothing."""


def why_worse(one: Explanation) -> str:
    """How far the last step that ran is from the float model, and what costs most of it as far as that is known."""
    last = next((step for step in reversed(one.steps[1:]) if step.metric is not None or step.sqnr_db is not None), None)
    if last is None:
        return "not known: no step was run"
    far = f"SQNR {last.sqnr_db:.1f} dB" if last.sqnr_db is not None else last.note or "SQNR not known"
    first = one.steps[0].metric
    moved = f", {one.metric} {number(first)} → {number(last.metric)}" if None not in (first, last.metric) else ""
    cause = _cause(one, last) if last.sqnr_db is not None else ""
    return f"{far}{moved} (step {last.name}){f'; {cause}' if cause else ''}"


def _cause(one: Explanation, last: Step) -> str:
    """Ranges that do not fit the rows explain all that follows; else the step that lost it; else layers."""
    odd = next((found for found in one.remarks if found.kind in _RANGES), None)
    if odd is not None:
        return f"look at calibration first: {odd.subject}: {odd.message}"
    before = next((step for step in reversed(one.steps[: one.steps.index(last)]) if step.sqnr_db is not None), None)
    if last.name == "engine" and before is not None and (before.sqnr_db or 0.0) - (last.sqnr_db or 0.0) > MUCH_DB:
        return f"most of it is lost by what the backend makes of step {before.name} ({before.sqnr_db:.1f} dB)"
    return _layer(one.layers)


def _layer(layers: Sequence[Layer]) -> str:
    known = [layer for layer in worst_first(layers) if layer.alone_db is not None][:NAMED]
    if not known:
        return ""
    worst, *others = known
    if not others or (others[0].alone_db or 0.0) - (worst.alone_db or 0.0) > MUCH_DB:
        beside = f", the next {number(others[0].alone_db)} dB" if others else ""
        return f"one layer stands out: {worst.tensor} ({worst.op}) has {number(worst.alone_db)} dB alone{beside}"
    return "no layer stands out: the worst alone are " + ", ".join(
        f"{layer.tensor} ({number(layer.alone_db)} dB)" for layer in known
    )


def what_runs(placement: Placement) -> str:
    """How many nodes run in low precision, and what else runs to convert values for them."""
    total = placement.integer + placement.float
    around = ", ".join(f"{count} {name}" for name, count in placement.kernels if _CONVERTS.search(name))
    away = f"; {placement.elsewhere} operators run elsewhere" if placement.elsewhere else ""
    converts = f"; to convert values: {around}" if around and placement.integer else ""
    return f"{placement.integer} of {total} quantizable nodes run as integer kernels{converts}{away}"


def float_groups(nodes: Iterable[FloatNode]) -> tuple[str, ...]:
    """A line for each reason, with all nodes that it holds for; the reason of most nodes first."""
    ordered = sorted(nodes, key=lambda node: node.reason)
    groups = [(reason, list(found)) for reason, found in groupby(ordered, key=lambda node: node.reason)]
    return tuple(
        f"{len(found)} in float: {reason}: {_named(found)}"
        for reason, found in sorted(groups, key=lambda group: -len(group[1]))
    )


def _named(nodes: Sequence[FloatNode]) -> str:
    named = ", ".join(f"{node.name} ({node.op})" for node in nodes[:NAMED])
    return named + (f" and {more} more" if (more := len(nodes) - NAMED) > 0 else "")
