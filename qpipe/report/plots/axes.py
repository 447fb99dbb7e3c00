"""Axes of a plot: from data to pixels, round ticks, grid and frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qpipe.report.plots.svg import GRID, INK, SIZE, Point, line, text

Ticks = tuple[tuple[float, str], ...]
"""Values with their labels."""
_GAP = 5
_PLAIN = range(7)
"""As many decimals are written out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values from `low` to `high` at pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a finite value, which may lie outside."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def within(self, value: float) -> float:
        """The pixel of any value; what lies outside is at the border."""
        return self.at(min(max(value, self.low), self.high))

    def ticks(self, count: int) -> Ticks:
        """About `count` round values.

        Source: Heckbert (1990), Nice Numbers for Graph Labels, Graphics Gems: steps of 1, 2 or 5 times a power of 10.
        """
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return tuple((number * step, _label(number * step, step)) for number in range(first, last + 1))


def _label(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    plain = decimals in _PLAIN and abs(value) < 1e7  # more digits than a tick has room for
    return (f"{value:,.{decimals}f}" if plain else f"{value:.4g}").replace("-", "−")


def limits(values: Iterable[float], share: float) -> tuple[float, float]:
    """From below the smallest to above the largest finite value, by a share of what lies between."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = max((high - low) * share, max(abs(low), abs(high)) * 1e-6)
    room = room if high > low else abs(high) * 0.05 or 1.0
    return low - room, high + room


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes; y runs upwards, so that `y.start` is the lower pixel unless rows are listed downwards."""

    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> Point:
        """The pixel of a point, at the border where it lies outside."""
        return self.x.within(x), self.y.within(y)

    def frame(self, x_ticks: Ticks, y_ticks: Ticks) -> Iterator[str]:
        """Grid, both axes and the labels of their ticks."""
        top, bottom = sorted((self.y.start, self.y.end))
        for value, label in x_ticks:
            x = self.x.at(value)
            yield line((x, top), (x, bottom), colour=GRID)
            yield text((x, bottom + SIZE + _GAP), label, anchor="middle")
        for value, label in y_ticks:
            y = self.y.at(value)
            yield line((self.x.start, y), (self.x.end, y), colour=GRID)
            yield text((self.x.start - _GAP, y + SIZE / 3), label, anchor="end")
        yield line((self.x.start, top), (self.x.start, bottom))
        yield line((self.x.start, bottom), (self.x.end, bottom))

    def titles(self, *, above: str = "", below: str = "", beside: str = "") -> Iterator[str]:
        """What stands above the panel at the left, below it in the middle, and left of it, running upwards."""
        top, bottom = sorted((self.y.start, self.y.end))
        if above:
            yield text((self.x.start, top - 2 * _GAP), above, bold=True)
        if below:
            yield text(((self.x.start + self.x.end) / 2, bottom + 3 * SIZE + _GAP), below, anchor="middle", colour=INK)
        if beside:
            yield text((SIZE + _GAP, (top + bottom) / 2), beside, anchor="middle", upright=True)
