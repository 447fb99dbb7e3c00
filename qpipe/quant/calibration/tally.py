"""What is kept of one observed tensor while rows stream by: sums, extremes, counts and a bounded sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qpipe.quant.calibration.histogram import Histogram
from qpipe.quant.calibration.observe import Probe
from qpipe.quant.calibration.reservoir import Reservoir
from qpipe.quant.calibration.statistics import TensorStatistics
from qpipe.quant.numbers import F32, F64

Array = NDArray[np.generic]
WAITING = 2**14
"""Reductions that wait before they are added up, 64 KiB of each kind: one numpy call for many runs."""


@dataclass(slots=True)
class _Waiting:
    """Reductions of several runs, each [·, C]."""

    lows: list[Array] = field(default_factory=list)
    highs: list[Array] = field(default_factory=list)
    means: list[Array] = field(default_factory=list)
    elements: list[int] = field(default_factory=list)
    values: int = 0


class Tally:
    """Statistics of one tensor so far."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.histogram = Histogram()
        self.vectors = Reservoir()
        self.low: F64 | None = None
        self.high: F64 | None = None
        self.total: F64 | None = None
        self.elements = 0
        self.shape: tuple[int, ...] = ()
        self.waiting = _Waiting()
        self.row_elements = math.prod(probe.sizes or ())

    def take(self, outputs: list[Array], rows: int) -> None:
        """The probe's outputs of one run over so many rows."""
        probe = self.probe
        if probe.sizes is not None:
            shape, elements = (rows, *probe.sizes), rows * self.row_elements
        else:
            shape = tuple(int(size) for size in outputs[-1].reshape(-1))
            elements = math.prod(shape)
        if elements == 0:
            return
        if elements >= math.prod(self.shape or (0,)):
            self.shape = shape
        reductions = outputs[: probe.parts.index("drawn")]
        if len(reductions) == 1:
            [ends] = reductions
            half = ends.shape[1] // 2
            self.wait(None, ends[:, :half], ends[:, half:], elements)
        else:
            *low, high, mean = map(self.by_channel, reductions)
            self.wait(low[0] if low else None, high, mean, elements)
        values = np.asarray(outputs[len(reductions)], np.float32)
        self.histogram.add(values.reshape(-1))
        if len(reductions) > 1 and values.ndim == 2:
            self.sample(values, shape)

    def by_channel(self, array: Array) -> Array:
        """Reductions of one run as [·, C] ([·, 1] for a whole tensor)."""
        return array.reshape(-1, 1 if self.probe.axis is None else array.shape[-1])

    def wait(self, low: Array | None, high: Array, mean: Array, elements: int) -> None:
        """Reductions of one run, [·, C] each; they are added up when many wait."""
        if self.waiting.highs and self.waiting.highs[-1].shape[1] != high.shape[1]:
            self.settle()
        waiting = self.waiting
        if low is not None:
            waiting.lows.append(low)
        waiting.highs.append(high)
        waiting.means.append(mean)
        waiting.elements.append(elements)
        waiting.values += high.size
        if waiting.values >= WAITING:
            self.settle()

    def sample(self, values: F32, shape: tuple[int, ...]) -> None:
        """Keep some of what was drawn where it is whole channel vectors."""
        if self.probe.axis == 1:
            values = values.reshape(shape[0], shape[1], -1).transpose(0, 2, 1).reshape(-1, shape[1])
        self.vectors.add(values)

    def settle(self) -> None:
        """Add up what waits."""
        waiting = self.waiting
        if not waiting.highs:
            return
        high = np.concatenate(waiting.highs).max(axis=0).astype(np.float64)
        counts = [len(mean) for mean in waiting.means]
        weights = np.repeat(np.divide(waiting.elements, counts), counts)
        with np.errstate(invalid="ignore"):  # infinities of both signs
            total = np.asarray(weights @ np.concatenate(waiting.means).astype(np.float64), np.float64)
        if waiting.lows:
            low = np.concatenate(waiting.lows).min(axis=0).astype(np.float64)
        else:  # 0 for what is never negative; a largest value may pass over NaN, a sum does not
            low = np.where(np.isnan(total), np.nan, 0.0)
        elements = sum(waiting.elements)
        self.waiting = _Waiting()
        self.join(low, high, total, elements)

    def join(self, low: F64, high: F64, total: F64, elements: int) -> None:
        """Reductions over many rows, [C] each."""
        if self.low is not None and self.low.size != low.size:
            low, high, total = self.collapse(low, high, total)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        self.total = total if self.total is None else self.total + total
        self.elements += elements

    def collapse(self, low: F64, high: F64, total: F64) -> tuple[F64, F64, F64]:
        """The last axis changes its length (attention scores): keep one number for the whole tensor from now on."""
        if self.low is not None and self.high is not None and self.total is not None and self.low.size > 1:
            self.low, self.high = self.low.min(keepdims=True), self.high.max(keepdims=True)
            self.total = self.total.mean(keepdims=True)
        return low.min(keepdims=True), high.max(keepdims=True), total.mean(keepdims=True)

    def result(self) -> TensorStatistics | None:
        """The statistics, or None where no row reached the tensor."""
        self.settle()
        if self.low is None or self.high is None or self.total is None:
            return None
        self.histogram.flush()
        return TensorStatistics(
            tensor=self.probe.tensor,
            axis=None if self.low.size == 1 and self.shape[-1:] != (1,) else self.probe.axis,
            shape=self.shape,
            elements=self.elements,
            low=self.low,
            high=self.high,
            mean=self.total / self.elements,
            bins_low=self.histogram.low,
            bins_high=self.histogram.high,
            bins=self.histogram.counts,
            zeros=self.histogram.zeros,
            drawn=self.histogram.drawn,
            square=self.histogram.square,
            vectors=self.vectors.rows(),
        )
