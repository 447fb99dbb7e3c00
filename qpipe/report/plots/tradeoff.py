"""Metric against median latency: the cells of a run side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.records.evidence import Evaluation, Percentile
from qpipe.records.result import CellResult
from qpipe.report.plots.colours import COLOUR, FLOAT, MARKER
from qpipe.report.plots.figure import LETTER_INCHES, Margins, figure, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_POINTS = 12.0
"""Height of a line of text."""
HALF_INCHES = 3.2
"""Room for a name on one side of a point, at least."""


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
    beyond, height = _beyond_inches(cells), max(4.0, 1.2 + len(cells) * LINE_POINTS / 72)
    with figure(path, 6.4 + beyond, height, Margins(right=0.15 + beyond)) as made:
        axes = made.add_subplot()
        for cell in cells:
            _mark(axes, cell)
        axes.set_title(f"{metric} against latency; bars: one-sided bounds, 95 % and the quality gate's")
        axes.set_xlabel("median latency, ms")
        axes.set_ylabel(metric)
        axes.margins(0.18)
        _name(axes, cells)
    return path


def _mark(axes: Axes, cell: CellResult) -> None:
    (median, value), colour = _point(cell), COLOUR[cell.decision]
    low, high = _quality_interval(cell, value)
    quick = median.value if median.low is None else median.low
    slow = median.value if median.high is None else median.high
    axes.errorbar(
        median.value,
        value,
        xerr=[[median.value - quick], [slow - median.value]],
        yerr=[[value - low], [high - value]],
        fmt=MARKER[cell.decision],
        color=colour,
        capsize=2,
        markersize=6,
        elinewidth=1.2,
    )


def _name(axes: Axes, cells: tuple[CellResult, ...]) -> None:
    """Names stand on the side of their points where there is more room, each on a line of its own."""
    points = [(median.value, value) for median, value in map(_point, cells)]
    beyond = _beyond_inches(cells)
    middle, scale = sum(axes.get_xlim()) / 2, 72 / axes.figure.dpi
    heights = [scale * float(axes.transData.transform(point)[1]) for point in points]
    lines = apart([height + LINE_POINTS / 2 for height in heights], lowest=scale * axes.bbox.y0 + LINE_POINTS / 2)
    for cell, point, height, line in zip(cells, points, heights, lines, strict=True):
        left = point[0] > middle and not beyond
        axes.annotate(
            _told(cell),
            point,
            xytext=(-9 if left else 9, line - height),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            color=COLOUR[cell.decision],
            arrowprops={"arrowstyle": "-", "color": FLOAT, "linewidth": 0.5, "shrinkA": 0, "relpos": (left, 0.5)},
        )


def _told(cell: CellResult) -> str:
    return shown(f"{cell.recipe} · {cell.target}{f' {cell.decision.value}' if cell.decision else ''}")


def _beyond_inches(cells: Iterable[CellResult]) -> float:
    """Room beside the axes that names need where half of the axes is too little."""
    longest = LETTER_INCHES * max(len(_told(cell)) for cell in cells)
    return longest if longest > HALF_INCHES else 0.0


def apart(heights: Sequence[float], lowest: float) -> list[float]:
    """Heights of lines of text in points: moved down until each has room below the next higher, none below `lowest`."""
    found = list(heights)
    ordered = sorted(range(len(found)), key=found.__getitem__)
    for upper, lower in pairwise(reversed(ordered)):
        found[lower] = min(found[lower], found[upper] - LINE_POINTS)
    for at, index in enumerate(ordered):
        found[index] = max(found[index], lowest + at * LINE_POINTS)
    return found


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


def _point(cell: CellResult) -> tuple[Percentile, float]:
    """Latency and metric of a cell that is `comparable`."""
    median, evaluation = _median(cell), _evaluation(cell)
    if median is None or evaluation is None or evaluation.value is None:
        raise ValueError(f"{cell.label} has no latency or no metric")
    return median, evaluation.value


def _evaluation(cell: CellResult) -> Evaluation | None:
    evaluation = cell.evidence.evaluation if cell.evidence else None
    return evaluation if isinstance(evaluation, Evaluation) else None
