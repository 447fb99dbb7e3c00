"""The difference to the float model, slice by slice."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision, SliceVerdict, Verdict
from qpipe.report.plots.colours import COLOUR, ZERO
from qpipe.report.plots.figure import figure, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_slices(cell: CellResult, verdict: Verdict, path: Path) -> Path:
    """Difference to the float model per slice with its interval, worst first, and the margin."""
    slices = sorted(
        (part for part in verdict.slices if part.observed is not None), key=lambda part: part.observed or 0.0
    )
    with figure(path, 6.4, 1.2 + 0.26 * len(slices)) as made:
        axes = made.add_subplot()
        for row, part in enumerate(slices):
            _interval(axes, part, row)
        if verdict.limit is not None:
            axes.axvline(verdict.limit, color=COLOUR[Decision.FAIL], linestyle="--", linewidth=1)
            axes.annotate("limit", (verdict.limit, 1), xycoords=("data", "axes fraction"), color=COLOUR[Decision.FAIL])
        axes.axvline(0, color=ZERO, linewidth=1)
        axes.set_yticks(range(len(slices)), [f"{shown(part.name)}  (n = {part.n:,})" for part in slices])
        axes.invert_yaxis()
        axes.set_xlabel("engine − float model")
        axes.set_title(f"{shown(cell.label)}: {verdict.gate}", pad=16)
    return path


def _interval(axes: Axes, part: SliceVerdict, row: int) -> None:
    """What is seen with its bounds; where there is no finite bound, the interval has no cap."""
    seen, colour = part.observed or 0.0, COLOUR[part.decision]
    low, high = (bound if bound is not None and isfinite(bound) else seen for bound in (part.low, part.high))
    axes.hlines(row, low, high, color=colour, linewidth=2)
    axes.plot(seen, row, "o", color=colour, markersize=4)
