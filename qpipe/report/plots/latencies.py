"""The distribution of the raw latencies of an engine and of the float engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qpipe.records.result import CellResult
from qpipe.report.plots.axes import Panel, Scale
from qpipe.report.plots.colours import ENGINE, FLOAT
from qpipe.report.plots.svg import clip_path, curve, document, line, text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qpipe.measure.samples import Samples

    Floats = NDArray[np.float64]

_POINTS, _POINTS_OF_ONE = 400, 100
"""A curve over all processes is drawn from so many quantiles, one of a process from fewer: thousands look the same."""
_WIDTH, _LEFT, _TOP, _BOTTOM = 320, 58, 48, 250
_LEGEND = 70


def draw_latencies(cell: CellResult, samples: Samples) -> str:
    """The share of runs that took no longer, a panel per batch size.

    A thin line per process, since the process is the unit, and a thick one over all.
    """
    names = tuple((str(name), str(name) == cell.label) for name in samples.engines)
    parts = [text((12, 18), cell.label, bold=True)]
    for place, size in enumerate(samples.batches):
        parts += _panel(samples, names, size, place)
    panels = len(samples.batches)
    parts += _legend(cell.recipe, panels * _WIDTH - _LEGEND)
    return document(panels * _WIDTH + 20, _BOTTOM + 50, parts)


def _panel(samples: Samples, names: tuple[tuple[str, bool], ...], size: int, place: int) -> Iterator[str]:
    import numpy as np

    # One stall of the machine would squeeze everything else into a line.
    times = np.concatenate([samples.matrix_ms(name, size).ravel() for name, _ in names])
    quick, slow = (float(np.quantile(times, share)) for share in (0.0, 0.95))
    left = place * _WIDTH + _LEFT
    x = Scale(low=0.9 * quick, high=1.3 * slow, start=left, end=left + _WIDTH - _LEFT)
    panel = Panel(x=x, y=Scale(low=0.0, high=1.0, start=_BOTTOM, end=_TOP))
    inside = f"panel{place}"
    yield clip_path(inside, (x.start, _TOP), x.end - x.start, _BOTTOM - _TOP)
    yield from panel.frame(x.ticks(5), panel.y.ticks(5))
    yield from panel.titles(above=f"batch {size}", below="latency, ms (the slowest may lie outside)")
    if place == 0:
        yield from panel.titles(beside="share of runs")
    for name, own in names:
        colour = ENGINE if own else FLOAT
        for process in range(samples.processes):
            yield _ecdf(panel, samples.times_ms(name, size, process), colour, inside, thick=False)
        yield _ecdf(panel, samples.matrix_ms(name, size).ravel(), colour, inside, thick=True)


def _ecdf(panel: Panel, times_ms: Floats, colour: str, clip: str, *, thick: bool) -> str:
    import numpy as np

    share = np.linspace(0, 1, min(_POINTS if thick else _POINTS_OF_ONE, max(2, len(times_ms))))
    found = np.quantile(times_ms, share)
    points = [(panel.x.at(float(time)), panel.y.at(float(part))) for time, part in zip(found, share, strict=True)]
    return curve(points, colour=colour, width=2 if thick else 0.7, opacity=1 if thick else 0.45, clip=clip)


def _legend(recipe: str, left: float) -> Iterator[str]:
    for row, (label, colour) in enumerate((("float", FLOAT), (recipe, ENGINE))):
        y = _BOTTOM - 30 + 16 * row
        yield line((left - 26, y - 4), (left - 6, y - 4), colour=colour, width=2)
        yield text((left, y), label)
