"""Drift: whether the ratio of an engine to the float engine moved with time while it was measured.

Engines run interleaved, so a machine that changes its speed changes both, and their ratio stays; processes that differ
(memory layout) are what the interval over processes is for. What biases a ratio unseen is a change that hits the two
unequally and goes one way: within every process alike (clocks, caches), or from process to process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qpipe.measure.samples import Floats, Samples

MOVED = 0.04
"""A ratio that moves by less from end to end does not matter: its mean is then off by about 2 %."""
ALPHA = 0.10
"""How often an engine whose ratio stays is measured again at most, over both kinds and all batch sizes."""
FEWEST_PROCESSES = 3
"""Below so many nothing tells drift from chance, and no gate decides on a ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """How far a ratio moved from end to end, as log, and how likely chance alone moves it so far."""

    where: str
    log_change: float
    chance: float

    def __str__(self) -> str:
        moved = 100 * math.expm1(self.log_change)
        return f"the ratio to float moved by {moved:+.0f} % {self.where} (by chance: p = {self.chance:.2g})"


def find_drift(samples: Samples, name: str, baseline: str) -> str:
    """Why the ratio of an engine is void, with numbers, or empty."""
    if name == baseline or samples.processes < FEWEST_PROCESSES:
        return ""
    tested = [(size, one) for size in samples.batches for one in _movements(samples, name, baseline, size)]
    for size, one in tested:
        if one.chance < ALPHA / len(tested) and abs(one.log_change) > math.log1p(MOVED):
            return f"batch {size}: {one}"
    return ""


def drifted(samples: Samples, baseline: str) -> bool:
    """Whether the ratio of any engine moved, so that all are measured again."""
    return any(find_drift(samples, str(name), baseline) for name in samples.engines)


def _movements(samples: Samples, name: str, baseline: str, size: int) -> tuple[Movement, ...]:
    own, base = (
        [samples.times_ms(one, size, process) for process in range(samples.processes)] for one in (name, baseline)
    )
    return movements(own, base)


def movements(own: Sequence[Floats], base: Sequence[Floats]) -> tuple[Movement, ...]:
    """The movement within processes and the one from process to process.

    Within: log ratios of medians in each process's last third against its first one, 3/2 of their mean over processes
    (the middles of these thirds are 2/3 of a process apart); t over processes. Between: the log ratios of the processes
    in their order are fitted by a line, and by a step after each of them; t of the slope, and the smallest p of all
    these shapes counts times their number (Bonferroni).

    Args:
        own: times of the engine in each process, in order; at least three processes.
        base: the same of the float engine, run for run interleaved with it.

    Source: Student's t of a mean and of a slope, e.g. Draper & Smith 1998, Applied Regression Analysis, section 1.4.
    """
    shortest = min(len(one) for one in (*own, *base))
    found = [_between(np.array([_log_ratio(*pair) for pair in zip(own, base, strict=True)]))]
    if shortest >= 3:
        found.insert(0, _within(np.array([_change(*pair) for pair in zip(own, base, strict=True)])))
    return tuple(found)


def _log_ratio(own: Floats, base: Floats) -> float:
    return math.log(float(np.median(own)) / float(np.median(base)))


def _change(own: Floats, base: Floats) -> float:
    parts = [_log_ratio(*pair) for pair in zip(np.array_split(own, 3), np.array_split(base, 3), strict=True)]
    return parts[2] - parts[0]


def _within(changes: Floats) -> Movement:
    mean, error = float(changes.mean()), float(changes.std(ddof=1)) / math.sqrt(len(changes))
    return Movement(
        where="within the processes", log_change=1.5 * mean, chance=_chance(mean, error, freedom=len(changes) - 1)
    )


def _between(logs: Floats) -> Movement:
    order = np.arange(len(logs))
    shapes = {"from the first process to the last": order / order[-1]}
    shapes |= {f"after process {number} of {len(logs)}": (order >= number).astype(float) for number in order[1:]}
    best = min((_fitted(where, logs, shape) for where, shape in shapes.items()), key=lambda one: one.chance)
    return replace(best, chance=min(1.0, best.chance * len(shapes)))


def _fitted(where: str, logs: Floats, shape: Floats) -> Movement:
    """The least-squares change along a shape that rises from 0 to 1."""
    centred = shape - shape.mean()
    spread = float(centred @ centred)
    change = float(centred @ logs) / spread
    rest = logs - logs.mean() - change * centred
    error = math.sqrt(float(rest @ rest) / (len(logs) - 2) / spread)
    return Movement(where=where, log_change=change, chance=_chance(change, error, freedom=len(logs) - 2))


def _chance(value: float, error: float, *, freedom: int) -> float:
    """Two-sided p of value / error; 0 where a change has no spread at all."""
    from scipy.special import stdtr

    if error <= 0:
        return float(value == 0)
    return 2 * float(stdtr(freedom, -abs(value) / error))
