"""From statistics to a real range: MinMax, percentile, entropy and mean squared error, all from the one histogram."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import QuantizationError
from qpipe.quant.calibration.statistics import TensorStatistics
from qpipe.quant.numbers import F64
from qpipe.records.quantization import RangeMethod

METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)
CANDIDATES = 96
"""Ends of the range that the mean-squared-error search tries on each side."""
ENTROPY_LEVELS = 128
"""Quantized levels on one side, as in TensorRT's calibrator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRule:
    """How ranges are found, and what the integers are."""

    method: RangeMethod = "mse"
    percentile: float = 99.999
    """Share of values kept inside the range, in percent, split over both sides."""
    levels: int = 255
    """Steps between the smallest and the largest integer."""
    symmetric: bool = False


def find_range(item: TensorStatistics, rule: RangeRule) -> tuple[float, float]:
    """(low, high) with low ≤ 0 ≤ high, so that zero is always exact. Finite statistics are taken for granted."""
    low, high = item.range
    if rule.method == "minmax" or item.drawn == 0 or low == high:
        found = low, high
    elif rule.method == "percentile":
        found = _percentile(item, rule.percentile)
    elif rule.method == "entropy":
        found = _entropy(item, rule)
    else:
        found = _mse(item, rule)
    low, high = min(max(found[0], low), 0.0), max(min(found[1], high), 0.0)
    if rule.symmetric:
        end = max(-low, high)
        return -end, end
    return low, high


def find_channel_ranges(item: TensorStatistics, rule: RangeRule) -> tuple[F64, F64]:
    """(low, high), each [C], with low ≤ 0 ≤ high: the range of each channel by itself.

    MinMax needs the exact extremes alone; the others look at each channel's share of the kept vectors.

    Raises:
        QuantizationError: the statistics have no numbers per channel, or no vectors where the method needs them.
    """
    if item.axis is None:
        raise QuantizationError(f"tensor {item.tensor!r} has no channels", hint="use one range for the whole tensor")
    if rule.method != "minmax" and not item.vectors.size:
        raise QuantizationError(
            f"tensor {item.tensor!r} has no channel vectors, which {rule.method!r} ranges per channel need",
            hint="calibrate with `channels: true`, or use `minmax`",
        )
    ends = np.array([find_range(_channel(item, number), rule) for number in range(item.low.size)])
    return ends[:, 0], ends[:, 1]


def _channel(item: TensorStatistics, number: int) -> TensorStatistics:
    """One channel as a tensor of its own: exact extremes, the histogram from the kept vectors."""
    only = slice(number, number + 1)
    return replace(
        item.with_vectors(item.vectors[:, only]),
        axis=None,
        elements=item.elements // max(item.low.size, 1),
        low=item.low[only],
        high=item.high[only],
        mean=item.mean[only],
    )


def clipped_share(item: TensorStatistics, low: float, high: float) -> float:
    """Share of drawn values outside [low, high], 0 to 1, from the histogram (a bin across an end counts by part)."""
    if not item.drawn or item.bins_high <= item.bins_low:
        return 0.0
    edges = np.linspace(item.bins_low, item.bins_high, item.bins.size + 1)
    below = np.concatenate([[0.0], np.cumsum(item.bins)])
    inside = np.interp(high, edges, below) - np.interp(low, edges, below)
    return float(np.clip(1.0 - inside / item.bins.sum(), 0.0, 1.0))


def _percentile(item: TensorStatistics, percentile: float) -> tuple[float, float]:
    edges = np.linspace(item.bins_low, item.bins_high, item.bins.size + 1)
    below = np.concatenate([[0.0], np.cumsum(item.bins)]) / item.bins.sum()
    tail = (100.0 - percentile) / 200.0
    two_sided = item.range[0] < 0 < item.range[1]
    low = float(np.interp(tail, below, edges)) if two_sided else item.range[0]
    high = float(np.interp(1.0 - (tail if two_sided else 2 * tail), below, edges))
    if item.range[1] <= 0:
        low, high = float(np.interp(2 * tail, below, edges)), item.range[1]
    return low, high


def _centers(item: TensorStatistics) -> F64:
    width = (item.bins_high - item.bins_low) / item.bins.size
    return np.asarray(item.bins_low + (np.arange(item.bins.size) + 0.5) * width, np.float64)


def _mse(item: TensorStatistics, rule: RangeRule) -> tuple[float, float]:
    """The range with the smallest expected squared error: uniform rounding inside plus clipping outside.

    Rounding costs Δ²/12 for each value inside (zeros are exact); clipping costs (x − end)².
    Source: Banner et al. 2019, arXiv:1810.05723, section 2 (the objective; here on a histogram).
    """
    low, high = item.range
    centers, counts = _centers(item), item.bins.astype(np.float64)
    lows = np.linspace(min(low, 0.0), 0.0, CANDIDATES, endpoint=False) if low < 0 else np.zeros(1)
    highs = np.linspace(max(high, 0.0), 0.0, CANDIDATES, endpoint=False) if high > 0 else np.zeros(1)
    if rule.symmetric:
        ends = np.linspace(max(-low, high), 0.0, CANDIDATES, endpoint=False)
        cost = _tail(centers, counts, ends) + _tail(-centers[::-1], counts[::-1], ends)
        cost += (item.drawn - item.zeros) * (2 * ends / rule.levels) ** 2 / 12
        end = float(ends[int(np.argmin(cost))])
        return -end, end
    cost_low = _tail(-centers[::-1], counts[::-1], -lows)
    cost_high = _tail(centers, counts, highs)
    step = (highs[None, :] - lows[:, None]) / rule.levels
    total = cost_low[:, None] + cost_high[None, :] + (item.drawn - item.zeros) * step**2 / 12
    place = np.unravel_index(int(np.argmin(total)), total.shape)
    return float(lows[place[0]]), float(highs[place[1]])


def _tail(centers: F64, counts: F64, ends: F64) -> F64:
    """Σ counts·(x − end)² over x > end, for ascending centers and every end, by suffix sums."""
    suffix = [np.concatenate([np.cumsum((counts * centers**k)[::-1])[::-1], [0.0]]) for k in (0, 1, 2)]
    place = np.searchsorted(centers, ends, side="right")
    zeroth, first, second = (part[place] for part in suffix)
    cost: F64 = np.maximum(second - 2 * ends * first + ends**2 * zeroth, 0.0)
    return cost


def _entropy(item: TensorStatistics, rule: RangeRule) -> tuple[float, float]:
    """Ends that keep the distribution closest to its quantized self (Kullback-Leibler), on magnitudes.

    Source: Migacz 2017, "8-bit inference with TensorRT", slides 32 to 38.
    """
    low, high = item.range
    counts = _magnitudes(item)
    zeros_bin = min(item.zeros, int(counts[0]))
    counts[0] -= zeros_bin
    if counts.sum() == 0:
        return low, high
    width = max(-low, high) / counts.size
    levels = ENTROPY_LEVELS if low < 0 or rule.symmetric else 2 * ENTROPY_LEVELS
    stops = np.unique(np.linspace(levels, counts.size, 64).astype(int))
    best = min(stops, key=lambda stop: _divergence(counts, int(stop), levels))
    end = float(best * width)
    return max(low, -end), min(high, end)


def _magnitudes(item: TensorStatistics, size: int = 2048) -> F64:
    """The histogram of |x| over [0, largest magnitude]."""
    end = max(-item.range[0], item.range[1])
    places = np.clip(np.abs(_centers(item)) / end * size, 0, size - 1).astype(np.intp)
    return np.asarray(np.bincount(places, weights=item.bins.astype(np.float64), minlength=size), np.float64)


def _divergence(counts: F64, stop: int, levels: int) -> float:
    inside = counts[:stop]
    reference = inside.copy()
    reference[-1] += counts[stop:].sum()
    groups: NDArray[np.intp] = np.minimum(np.arange(stop) * levels // stop, levels - 1)
    occupied = inside > 0
    sums = np.bincount(groups, weights=inside, minlength=levels)
    sizes = np.bincount(groups, weights=occupied, minlength=levels)
    spread = np.where(occupied, (sums / np.maximum(sizes, 1))[groups], 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1e-30)
    both = (p > 0) & (q > 0)
    missing = float(p[(p > 0) & ~both].sum())
    return float((p[both] * np.log(p[both] / q[both])).sum()) + missing * 20.0
