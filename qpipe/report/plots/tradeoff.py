"""Metric against median latency: the cells of a run side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.records.evidence import Evaluation, Percentile
from qpipe.records.recipe import REFERENCE
from qpipe.records.result import CellResult
from qpipe.report.plots.colours import COLOUR
from qpipe.report.plots.figure import figure, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def comparable(cells: tuple[CellResult, ...]) -> tuple[tuple[CellResult, ...], ...]:
    """Cells with a figure and a latency, those of one metric and one model together."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for cell in cells:
        evaluation = _evaluation(cell)
        if evaluation is not None and evaluation.value is not None and _median(cell) is not None:
            groups.setdefault((cell.model, evaluation.metric), []).append(cell)
    return tuple(tuple(group) for group in groups.values())


def plot_tradeoff(cells: tuple[CellResult, ...], path: Path) -> Path:
    """Metric against median latency at the first batch size, each with its interval.

    The vertical bar is the interval of the quality gate (difference to the float model, added to its value).
    """
    evaluation = _evaluation(cells[0])
    metric = evaluation.metric if evaluation is not None else ""
    with figure(path, 6.4, 4.0) as made:
        axes = made.add_subplot()
        for cell in cells:
            _mark(axes, cell)
        axes.set_title(f"{metric} against latency (bars: one-sided 95 % bounds)")
        axes.set_xlabel("median latency, ms")
        axes.set_ylabel(metric)
        axes.margins(0.18)
        _name(axes, cells)
    return path


def _mark(axes: Axes, cell: CellResult) -> None:
    median, evaluation = _median(cell), _evaluation(cell)
    if median is None or evaluation is None or evaluation.value is None:
        return
    value, colour = evaluation.value, COLOUR[cell.decision]
    low, high = _quality_interval(cell, value)
    quick = median.value if median.low is None else median.low
    slow = median.value if median.high is None else median.high
    axes.errorbar(
        median.value,
        value,
        xerr=[[median.value - quick], [slow - median.value]],
        yerr=[[value - low], [high - value]],
        fmt="s" if cell.recipe == REFERENCE else "o",
        color=colour,
        capsize=2,
        markersize=6,
        elinewidth=1.2,
    )


def _name(axes: Axes, cells: tuple[CellResult, ...]) -> None:
    """Names stand on the side of their points where there is more room."""
    middle = sum(axes.get_xlim()) / 2
    for cell in cells:
        median, evaluation = _median(cell), _evaluation(cell)
        if median is None or evaluation is None or evaluation.value is None:
            continue
        left = median.value > middle
        axes.annotate(
            shown(f"{cell.recipe} · {cell.target}"),
            (median.value, evaluation.value),
            xytext=(-7 if left else 7, 6),
            textcoords="offset points",
            ha="right" if left else "left",
            color=COLOUR[cell.decision],
        )


def _quality_interval(cell: CellResult, value: float) -> tuple[float, float]:
    """Bounds of the metric from the gate that judged its difference to the reference; none where no gate did."""
    reference = cell.evidence.reference if cell.evidence else None
    base = reference.value if isinstance(reference, Evaluation) else None
    for verdict in cell.verdicts:
        if base is None or verdict.observed is None or verdict.low is None or verdict.high is None:
            continue
        if verdict.gate == "quality" and abs(base + verdict.observed - value) < 1e-6:
            return min(value, base + verdict.low), max(value, base + verdict.high)
    return value, value


def _median(cell: CellResult) -> Percentile | None:
    batch = cell.evidence.first_batch if cell.evidence else None
    return dict(batch.latency_ms).get("p50") if batch else None


def _evaluation(cell: CellResult) -> Evaluation | None:
    evaluation = cell.evidence.evaluation if cell.evidence else None
    return evaluation if isinstance(evaluation, Evaluation) else None
