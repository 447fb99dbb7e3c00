"""A histogram whose range doubles when values fall outside: one pass, constant memory, no second look at the data."""

from __future__ import annotations

import numpy as np

from qpipe.quant.numbers import F32, F64

BINS = 2048
SMALLEST_WIDTH = 1e-30
"""Ranges below this count as one value."""
LARGE = 1e15
"""Squares of larger values, and what they are scaled by, leave float32."""
BUFFERED = 2**16
"""Values that wait before they are counted: fewer, larger numpy calls."""


class Histogram:
    """Counts of finite float32 values over `bins` equal bins."""

    __slots__ = ("_waiting", "_waiting_size", "counts", "drawn", "high", "low", "square_sum", "zeros")

    def __init__(self, bins: int = BINS) -> None:
        if bins % 2:
            raise ValueError(f"{bins} bins cannot be merged in pairs")
        self.counts = np.zeros(bins, np.int64)
        self.low = 0.0
        self.high = 0.0
        self.drawn = 0
        self.zeros = 0
        self.square_sum = 0.0
        self._waiting: list[F32] = []
        self._waiting_size = 0

    @property
    def square(self) -> float:
        """Mean square of the counted values; 0 without any."""
        return self.square_sum / max(self.drawn, 1)

    def add(self, values: F32) -> None:
        """Count more values. They are read later: the caller leaves the array as it is."""
        self._waiting.append(values)
        self._waiting_size += values.size
        if self._waiting_size >= BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Count what waits."""
        if not self._waiting_size:
            return
        values = np.concatenate(self._waiting)
        self._waiting, self._waiting_size = [], 0
        if not (np.isfinite(values.min()) and np.isfinite(values.max())):
            values = values[np.isfinite(values)]
        if values.size:
            self._count(values)

    def _count(self, values: F32 | F64) -> None:
        low, high = float(values.min()), float(values.max())
        if max(-low, high) > LARGE:
            values = values.astype(np.float64)
        self._cover(low, high)
        self.drawn += values.size
        self.zeros += int(values.size - np.count_nonzero(values))
        self.square_sum += float(np.dot(values, values))
        bins = self.counts.size
        width = self.high - self.low
        if width <= SMALLEST_WIDTH:
            self.counts[0] += values.size
            return
        places = ((values - np.float32(self.low)) * np.float32(bins / width)).astype(np.intp)
        self.counts += np.bincount(np.minimum(places, bins - 1), minlength=bins)

    def _cover(self, low: float, high: float) -> None:
        """Widen the range until it holds [low, high]; counts move exactly, by merging neighbours in pairs."""
        if not self.drawn:
            self.low, self.high = low, high
            return
        if self.high - self.low <= SMALLEST_WIDTH and (low < self.low or high > self.high):
            self._open(low, high)
            return
        while high > self.high:
            self._double(upwards=True)
        while low < self.low:
            self._double(upwards=False)

    def _open(self, low: float, high: float) -> None:
        """The first range was a single value: take the new range and put its count where it belongs."""
        value, count = self.low, int(self.counts[0])
        self.low, self.high = min(low, value), max(high, value)
        place = int((value - self.low) / (self.high - self.low) * self.counts.size)
        self.counts[0] = 0
        self.counts[min(place, self.counts.size - 1)] = count

    def _double(self, *, upwards: bool) -> None:
        merged = self.counts.reshape(-1, 2).sum(axis=1)
        half = merged.size
        self.counts = np.zeros_like(self.counts)
        width = self.high - self.low
        if upwards:
            self.counts[:half] = merged
            self.high += width
        else:
            self.counts[half:] = merged
            self.low -= width
