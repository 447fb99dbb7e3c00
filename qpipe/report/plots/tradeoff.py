"""Metric against median latency: the cells of a run side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qpipe.records.evidence import Evaluation, Percentile, Profile
from qpipe.records.result import CellResult
from qpipe.report.plots.axes import Panel, Scale, limits
from qpipe.report.plots.colours import COLOUR
from qpipe.report.plots.svg import document, dot, line, ring, square, text, text_width

_CAP = 3
_RIGHT = 620


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """One cell: low, value and high of both axes."""

    label: str
    colour: str
    float_engine: bool
    marked: bool
    x: tuple[float, float, float]
    y: tuple[float, float, float]


def comparable(cells: tuple[CellResult, ...]) -> tuple[tuple[CellResult, ...], ...]:
    """Cells with a figure and a latency, those of one metric and one model together."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for cell in cells:
        evaluation = _evaluation(cell)
        if evaluation is not None and evaluation.value is not None and _median(cell) is not None:
            groups.setdefault((cell.model, evaluation.metric), []).append(cell)
    return tuple(tuple(group) for group in groups.values())


def draw_tradeoff(cells: tuple[CellResult, ...], marked: str = "") -> str:
    """Metric against median latency at the first batch size, each with its interval; the cell of one key is marked.

    The vertical bar is the interval of the quality gate (difference to the float model, added to its value).
    """
    marks = [mark for cell in cells if (mark := _mark(cell, marked=cell.key == marked)) is not None]
    x_low, x_high = limits((value for mark in marks for value in mark.x), 0.18)
    y_low, y_high = limits((value for mark in marks for value in mark.y), 0.18)
    panel = Panel(
        x=Scale(low=x_low, high=x_high, start=80, end=_RIGHT), y=Scale(low=y_low, high=y_high, start=340, end=32)
    )
    evaluation = _evaluation(cells[0])
    metric = evaluation.metric if evaluation is not None else ""
    title = f"{metric} against latency (bars: one-sided 95 % bounds)"
    parts = [
        *panel.frame(panel.x.ticks(7), panel.y.ticks(6)),
        *panel.titles(above=title, below="median latency, ms", beside=metric),
        *(part for mark in marks for part in _drawn(mark, panel)),
    ]
    return document(_RIGHT + 20, 390, parts)


def _drawn(mark: _Mark, panel: Panel) -> Iterator[str]:
    x, y, colour = mark.x[1], mark.y[1], mark.colour
    at = panel.at(x, y)
    for value in (mark.x[0], mark.x[2]):
        end = panel.at(value, y)
        yield line(at, end, colour=colour, width=1.3)
        yield line((end[0], end[1] - _CAP), (end[0], end[1] + _CAP), colour=colour, width=1.3)
    for value in (mark.y[0], mark.y[2]):
        end = panel.at(x, value)
        yield line(at, end, colour=colour, width=1.3)
        yield line((end[0] - _CAP, end[1]), (end[0] + _CAP, end[1]), colour=colour, width=1.3)
    yield square(at, 4, colour=colour) if mark.float_engine else dot(at, 4.5, colour=colour)
    if mark.marked:
        yield ring(at, 9, colour=colour)
    away = 11 if mark.marked else 7
    leftwards = at[0] + away + text_width(mark.label) > _RIGHT
    corner = (at[0] - away if leftwards else at[0] + away, at[1] - 7)
    yield text(corner, mark.label, anchor="end" if leftwards else "start", colour=colour, bold=mark.marked)


def _mark(cell: CellResult, *, marked: bool) -> _Mark | None:
    median, evaluation = _median(cell), _evaluation(cell)
    if median is None or evaluation is None or evaluation.value is None:
        return None
    low, high = _quality_interval(cell, evaluation.value)
    slow = median.value if median.high is None else median.high
    return _Mark(
        label=f"{cell.recipe} · {cell.target}",
        colour=COLOUR[cell.decision],
        float_engine=cell.recipe == "none",
        marked=marked,
        x=(median.value if median.low is None else median.low, median.value, slow),
        y=(low, evaluation.value, high),
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
    profile = cell.evidence.profile if cell.evidence else None
    if not isinstance(profile, Profile) or not profile.batches:
        return None
    return dict(profile.batches[0].latency_ms).get("p50")


def _evaluation(cell: CellResult) -> Evaluation | None:
    evaluation = cell.evidence.evaluation if cell.evidence else None
    return evaluation if isinstance(evaluation, Evaluation) else None
