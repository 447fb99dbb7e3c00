"""The grid on which the pixels of an image stand: 8-bit levels, equally spaced in each channel, found from the rows.

An image that was 8-bit before it was normalized is real = (level − zero)·step with level in 0…255, in every channel
with a step and a zero of its own. Quantized on that grid it loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpipe.quant.numbers import F64

VERSION = 1
LEVELS = 256
SEEN = 64
"""Levels that the sample must hold: with fewer it may be a mask, a drawing or chance."""
ROWS, VALUES = 64, 2**16
"""Rows, and values of a channel, in the sample from which steps are fitted."""
TOLERANCE = 2.0**-7
"""How far from its level a value may stand, in steps: float32 normalization leaves 1e-4, half precision too much."""
WHOLE = 1e-3
"""Zeros this near to a level stand on it, in steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Levels of each channel, all arrays [C]: real = (level − zero)·step."""

    step: F64
    """In units of the tensor, > 0."""
    zero: F64
    """The level of real 0, in general between two levels."""
    mean: F64
    """Mean level of all rows, 0 to 255."""


def find_grid(batches: Iterable[NDArray[np.generic]], axis: int) -> Grid | None:
    """The grid of images [N, …] with channels on `axis`, or None where one value of one channel stands off it.

    One pass; at most `ROWS` rows are held, or one batch. Where the rows do not use all 256 levels, the missing ones are
    taken to lie half below and half above.
    """
    rest = iter(batches)
    held: list[NDArray[np.generic]] = []
    for batch in rest:
        held.append(batch)
        if sum(map(len, held)) >= ROWS:
            break
    channels = [_Channel.fit(_sample(held, axis, number)) for number in range(held[0].shape[axis])] if held else []
    for batch in chain(held, rest) if channels and None not in channels else ():
        parts = zip(channels, np.moveaxis(batch, axis, 0), strict=True)
        if not all(channel is not None and channel.take(part) for channel, part in parts):
            return None
    found = [channel.levels() for channel in channels if channel is not None]
    if not found or len(found) < len(channels):
        return None
    step, zero, mean = np.array(found).T
    return Grid(step=step, zero=zero, mean=mean)


def _sample(held: list[NDArray[np.generic]], axis: int, number: int) -> F64:
    values = np.concatenate([np.take(batch, number, axis).reshape(-1) for batch in held])
    return np.unique(values[:: max(values.size // VALUES, 1)]).astype(np.float64)


class _Channel:
    """One channel: its step, and what has been met."""

    def __init__(self, step: float, origin: float) -> None:
        self.step, self.origin = step, origin
        self.low, self.high, self.total, self.count = 0, 0, 0.0, 0

    @classmethod
    def fit(cls, values: F64) -> _Channel | None:
        """A step that all these sorted values are multiples of, from the first one on."""
        if values.size < SEEN or not np.isfinite(values).all():
            return None
        gaps = np.diff(values)
        values = values[np.append(True, gaps > (values[-1] - values[0]) * TOLERANCE / LEVELS)]
        if not SEEN <= values.size <= LEVELS:
            return None
        for part in range(1, LEVELS // SEEN + 1):  # the smallest gap of so many levels has no more steps than this
            levels = (values - values[0]) * part / np.diff(values).min()
            whole = np.rint(levels)
            if whole[-1] < LEVELS and np.abs(levels - whole).max() < 0.1:
                step, origin = np.polynomial.polynomial.polyfit(whole, values, 1)[::-1]
                return cls(float(step), float(origin))
        return None

    def take(self, part: NDArray[np.generic]) -> bool:
        """Count these values; False where one stands off the grid, or all so far need more than 256 levels."""
        if not part.size or not np.isfinite(part).all():
            return not part.size
        levels = (np.asarray(part, np.float32) - np.float32(self.origin)) * np.float32(1 / self.step)
        whole = np.rint(levels)
        if np.abs(levels - whole).max() > TOLERANCE:
            return False
        self.low, self.high = min(self.low, int(whole.min())), max(self.high, int(whole.max()))
        self.total += float(whole.sum(dtype=np.float64))
        self.count += whole.size
        return self.high - self.low < LEVELS

    def levels(self) -> tuple[float, float, float]:
        """Step, zero and mean."""
        first = self.low - (LEVELS - 1 - (self.high - self.low)) // 2
        zero = -self.origin / self.step - first
        whole = float(np.rint(zero))
        return self.step, whole if abs(zero - whole) <= WHOLE else zero, self.total / max(self.count, 1) - first


def save_grid(grid: Grid | None, folder: Path) -> None:
    """Write `grid.json` into an existing folder."""
    lists = None if grid is None else [grid.step.tolist(), grid.zero.tolist(), grid.mean.tolist()]
    (folder / "grid.json").write_text(json.dumps(lists))


def load_grid(folder: Path) -> Grid | None:
    """Read what `save_grid` wrote."""
    lists = json.loads((folder / "grid.json").read_text())
    if lists is None:
        return None
    step, zero, mean = (np.array(one, np.float64) for one in lists)
    return Grid(step=step, zero=zero, mean=mean)
