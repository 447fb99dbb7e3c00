"""The difference to the float model, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.records.evidence import Evaluation
from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision, SliceVerdict, Verdict
from qpipe.report.plots.colours import COLOUR, MARKER, ZERO
from qpipe.report.plots.figure import LETTER_INCHES, Margins, figure, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_slices(cell: CellResult, verdict: Verdict, path: Path) -> Path:
    """Difference to the float model per slice with its interval, worst first, and the margin."""
    slices = sorted(
        (part for part in verdict.slices if part.observed is not None), key=lambda part: part.observed or 0.0
    )
    names = [f"{shown(part.name)}  (n = {part.n:,})" for part in slices]
    names_inches = LETTER_INCHES * max(map(len, names), default=0)
    margins = Margins(left=names_inches + 0.2, top=0.5)
    with figure(path, 4.0 + margins.left, 1.0 + 0.26 * len(slices), margins) as made:
        axes = made.add_subplot()
        for decision in dict.fromkeys(part.decision for part in slices):
            _intervals(axes, [(row, part) for row, part in enumerate(slices) if part.decision is decision])
        if verdict.limit is not None:
            axes.axvline(verdict.limit, color=COLOUR[Decision.FAIL], linestyle="--", linewidth=1)
            axes.annotate("limit", (verdict.limit, 1), xycoords=("data", "axes fraction"), color=COLOUR[Decision.FAIL])
        axes.axvline(0, color=ZERO, linewidth=1)
        axes.set_yticks(range(len(slices)), names)
        axes.set_ylim(len(slices) - 0.5, -0.5)
        axes.set_xlabel(f"{shown(_metric(cell))}engine − float model")
        axes.set_title(f"{shown(cell.label)}: {verdict.gate}", pad=16)
    return path


def _metric(cell: CellResult) -> str:
    evaluation = cell.evidence.evaluation if cell.evidence else None
    return f"{evaluation.metric}: " if isinstance(evaluation, Evaluation) else ""


def _intervals(axes: Axes, slices: Sequence[tuple[int, SliceVerdict]]) -> None:
    """What is seen, with its bounds, of slices with one decision; where there is no finite bound, nothing is drawn."""
    colour = COLOUR[slices[0][1].decision]
    rows, seen = [row for row, _ in slices], [part.observed or 0.0 for _, part in slices]
    lows, highs = (
        [bound if bound is not None and isfinite(bound) else at for bound, at in zip(bounds, seen, strict=True)]
        for bounds in ([part.low for _, part in slices], [part.high for _, part in slices])
    )
    axes.hlines(rows, lows, highs, color=colour, linewidth=2)
    axes.plot(seen, rows, MARKER[slices[0][1].decision], color=colour, markersize=5)
