"""The tables of `qpipe explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.records.explanation import Explanation
from qpipe.report.causes import float_groups, what_runs, why_worse
from qpipe.report.columns import columns, plain
from qpipe.report.insight import NOT_KNOWN, worst_first
from qpipe.report.table import NOTHING, number

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

WORST = 12
"""Layers that are shown; `--json` has all."""


def render_explanation(one: Explanation) -> Group:
    """Why worse and why slower in a line each; then the loss of each step, the worst layers, what stayed in float."""
    from rich.console import Group
    from rich.markup import escape

    placement = one.placement
    speed = [text for text in (one.speed, what_runs(placement) if placement else "") if text]
    parts: list[RenderableType] = [
        f"[bold]{escape(one.cell)}[/]  {one.metric} on {one.rows:,} {one.role} rows",
        f"loss: {escape(why_worse(one))}",
        f"speed: {escape('; '.join(speed) or 'not known')}",
        "",
        _steps(one),
        *(escape(line) for line in one.beside),
    ]
    if one.layers:
        rows = f"{one.layer_rows} rows" if one.layer_rows else "rows"
        title = f"the worst {min(WORST, len(one.layers))} of {len(one.layers)} quantized tensors"
        parts += ["", f"{title}: dB on the first {rows}, ranges and clipped shares of calibration", _layers(one)]
    if placement is not None:
        told = (*float_groups(placement.left_in_float), *placement.notes)
        parts += ["", *(escape(line) for line in told)] if told else []
    parts += [f"[yellow]note:[/] {escape(f'{found.subject}: {found.message}')}" for found in one.remarks]
    return Group(*parts)


def _steps(one: Explanation) -> Table:
    numbers = ("metric", "change", "SQNR dB")
    table = columns("step", *numbers, folds=("step",), right=numbers)
    before: float | None = None
    for step in one.steps:
        change = NOTHING if before is None or step.metric is None else f"{step.metric - before:+.4g}"
        name = f"{step.name} ({step.note})" if step.note else step.name
        table.add_row(*plain(name), number(step.metric), change, number(step.sqnr_db))
        before = step.metric if step.metric is not None else before
    return table


def _layers(one: Explanation) -> Table:
    names = ("tensor", "op", "alone dB", "SQNR dB", "low", "high", "clipped", "kernel")
    table = columns(*names, folds=("tensor", "kernel"), right=names[1:])
    for layer in worst_first(one.layers)[:WORST]:
        ends = (number(layer.low), number(layer.high), f"{100 * layer.clipped:.2f} %")
        kernel = (layer.kernel.removeprefix("com.microsoft.") or NOT_KNOWN) if layer.node else NOTHING
        noise = (number(layer.alone_db), number(layer.sqnr_db))
        table.add_row(*plain(layer.tensor, layer.op), *noise, *ends, *plain(kernel))
    return table
