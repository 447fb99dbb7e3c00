"""The distribution of the raw latencies of an engine and of the float engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.records.result import CellResult
from qpipe.report.plots.colours import ENGINE, FLOAT
from qpipe.report.plots.figure import Margins, figure, shown

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from qpipe.measure.samples import Samples

_POINTS, _POINTS_OF_ONE = 400, 100
"""A curve over all processes is drawn from so many quantiles, one of a process from fewer: thousands look the same."""


def plot_latencies(cell: CellResult, samples: Samples, path: Path) -> Path:
    """The share of runs that took no longer, a panel per batch size."""
    sizes = samples.batches
    with figure(path, 3.4 * len(sizes) + 0.6, 3.0, Margins(left=0.55, top=0.6), len(sizes)) as made:
        panels = made.subplots(1, len(sizes), squeeze=False)[0]
        for axes, size in zip(panels, sizes, strict=True):
            _panel(axes, cell, samples, size)
        panels[0].set_ylabel("share of runs")
        panels[-1].legend(frameon=False, loc="lower right")
        made.suptitle(shown(cell.label), x=0.01, ha="left", fontsize=10)
    return path


def _panel(axes: Axes, cell: CellResult, samples: Samples, size: int) -> None:
    import numpy as np

    names = [str(name) for name in samples.engines]
    for name in names:
        own = name == names[-1]  # by its place: cells of other names may share this evidence
        _ecdf(axes, samples, name, size, colour=ENGINE if own else FLOAT, label=shown(cell.recipe) if own else "float")
    # One stall of the machine would squeeze everything else into a line.
    times = np.concatenate([samples.matrix_ms(name, size).ravel() for name in names])
    quick, slow = (float(np.quantile(times, share)) for share in (0.0, 0.95))
    axes.set_xlim(0.9 * quick, 1.3 * slow)
    axes.set_ylim(0, 1)
    axes.set_title(f"batch {size}")
    axes.set_xlabel("latency, ms (the slowest may lie outside)")


def _ecdf(axes: Axes, samples: Samples, name: str, size: int, *, colour: str, label: str) -> None:
    """One thin line per process, since the process is the unit, and a thick one over all."""
    from matplotlib.collections import LineCollection

    each = [_steps(samples.times_ms(name, size, process), _POINTS_OF_ONE) for process in range(samples.processes)]
    lines = [list(zip(times, shares, strict=True)) for times, shares in each]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=0.6, alpha=0.45), autolim=False)
    axes.plot(*_steps(samples.matrix_ms(name, size).ravel(), _POINTS), color=colour, linewidth=2, label=label)


def _steps(values: NDArray[np.float64], most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quantiles and shares, as an ECDF has them."""
    import numpy as np

    share = np.linspace(0, 1, min(most, max(2, len(values))))
    return np.quantile(values, share), share
