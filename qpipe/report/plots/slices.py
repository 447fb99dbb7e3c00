"""The difference to the float model, slice by slice."""

from __future__ import annotations

from collections.abc import Iterator

from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision, SliceVerdict, Verdict
from qpipe.report.plots.axes import Panel, Scale, limits
from qpipe.report.plots.colours import COLOUR, ZERO
from qpipe.report.plots.svg import document, dot, line, text, text_width

_ROW, _TOP, _WIDTH = 21, 46, 460


def draw_slices(cell: CellResult, verdict: Verdict) -> str:
    """Difference to the float model per slice with its interval, worst first, and the margin."""
    slices = sorted(
        (part for part in verdict.slices if part.observed is not None), key=lambda part: part.observed or 0.0
    )
    labels = [f"{part.name}  (n = {part.n:,})" for part in slices]
    found = (*(value for part in slices for value in _interval(part)), 0.0, verdict.limit or 0.0)
    low, high = limits(found, 0.05)
    left, bottom = 16 + max(map(text_width, labels)), _TOP + _ROW * len(slices)
    panel = Panel(
        x=Scale(low=low, high=high, start=left, end=left + _WIDTH),
        y=Scale(low=-0.5, high=len(slices) - 0.5, start=_TOP, end=bottom),
    )
    parts = [
        text((left, 18), f"{cell.label}: {verdict.gate}", bold=True),
        *panel.frame(panel.x.ticks(9), tuple(enumerate(labels))),
        *panel.titles(below="engine − float model"),
        line((panel.x.at(0), _TOP), (panel.x.at(0), bottom), colour=ZERO),
        *_limit(verdict.limit, panel),
        *(part for row, one in enumerate(slices) for part in _drawn(one, row, panel)),
    ]
    return document(left + _WIDTH + 20, bottom + 50, parts)


def _interval(part: SliceVerdict) -> tuple[float, float, float]:
    seen = part.observed or 0.0
    return seen if part.low is None else part.low, seen, seen if part.high is None else part.high


def _drawn(part: SliceVerdict, row: int, panel: Panel) -> Iterator[str]:
    low, seen, high = _interval(part)
    yield line(panel.at(low, row), panel.at(high, row), colour=COLOUR[part.decision], width=2)
    yield dot(panel.at(seen, row), 3, colour=COLOUR[part.decision])


def _limit(limit: float | None, panel: Panel) -> Iterator[str]:
    if limit is not None:
        x = panel.x.at(limit)
        yield line((x, panel.y.start), (x, panel.y.end), colour=COLOUR[Decision.FAIL], dashed=True)
        yield text((x + 4, panel.y.start - 4), "limit", colour=COLOUR[Decision.FAIL])
