"""Parts of the report that say why an engine is worse: steps of the loss, the calibration lint, layers."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from qpipe.records.explanation import Attribution, Explanation, Layer, Step
from qpipe.records.remark import Remark
from qpipe.records.result import CellResult
from qpipe.report.beside import compare_targets
from qpipe.report.html import counted, head, row
from qpipe.report.table import NOTHING, number

NOT_KNOWN = "not known"
"""The kernel of a node where the runtime's account of the engine does not tell it."""


def insight(cell: CellResult, explained: Explanation | None, cells: Iterable[CellResult] = ()) -> str:
    """Everything of one cell, as HTML; the layers once `qpipe explain` has looked at them.

    `cells`: those of the same run, where other targets may leave in float what this one does not.
    """
    evidence = cell.evidence
    if evidence is None:
        return ""
    steps = _attribution(evidence.attribution, compare_targets(cell, cells)) if evidence.attribution else ""
    return f"{steps}{_remarks(evidence.remarks)}{_layers(explained)}"


def worst_first(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Layers by what each costs alone, or where that is not known by its SQNR; those without either last."""
    known = ((layer, layer.sqnr_db if layer.alone_db is None else layer.alone_db) for layer in layers)
    ordered = sorted(known, key=lambda pair: float("inf") if pair[1] is None else pair[1])
    return tuple(layer for layer, _ in ordered)


def _attribution(found: Attribution, beside: tuple[str, ...]) -> str:
    rows = "".join(_step(step) for step in found.steps)
    note = f"<small>SQNR against the float model on the first {found.rows} {escape(found.role)} rows</small>"
    names = ("step", "metric", "SQNR dB", "")
    lines = "".join(f"<p>{escape(line)}</p>" for line in beside)
    return f"<h3>Where the loss comes from</h3><table>{head(names)}<tbody>{rows}</tbody></table><p>{note}</p>{lines}"


def _step(step: Step) -> str:
    return row(escape(step.name), number(step.metric), number(step.sqnr_db), escape(step.note))


def _remarks(found: tuple[Remark, ...]) -> str:
    if not found:
        return ""
    rows = "".join(row(escape(one.kind), escape(one.subject), escape(one.message)) for one in found)
    table = f"<table>{head(('finding', 'of', ''))}<tbody>{rows}</tbody></table>"
    opened = " open" if any(one.warns for one in found) else ""
    summary = f"{counted(len(found), 'remark')} on calibration and device"
    return f"<details{opened}><summary>{summary}</summary>{table}</details>"


def _layers(explained: Explanation | None) -> str:
    if explained is None or not explained.layers:
        return ""
    names = ("tensor", "op", "alone dB", "SQNR dB", "low", "high", "clipped", "kernel")
    rows = "".join(_layer(layer) for layer in worst_first(explained.layers))
    table = f'<div class="wide"><table>{head(names)}<tbody>{rows}</tbody></table></div>'
    count = counted(len(explained.layers), "quantized tensor")
    return f"<details><summary>{count}, the worst first</summary>{table}</details>"


def _layer(layer: Layer) -> str:
    return row(
        escape(layer.tensor),
        escape(layer.op),
        number(layer.alone_db),
        number(layer.sqnr_db),
        number(layer.low),
        number(layer.high),
        f"{100 * layer.clipped:.2f} %",
        escape(layer.kernel or NOT_KNOWN) if layer.node else NOTHING,
    )
