"""Whether the clock of a device can time what runs there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from qpipe.errors import EngineError

COARSE = 0.05
"""A median of ticks is off by up to one: of both engines, a tenth of their ratio."""

_FINER = "device_ns of the session: a finer clock, or the time of several runs divided by their number"


def check_device_ns(took: tuple[int, int]) -> tuple[int, int]:
    """Wall and CPU nanoseconds of one run, as the device gives them.

    Raises:
        EngineError: a time that no run can take: nothing, less, or not a number.
    """
    wall, cpu = took
    if not (np.isfinite(wall) and np.isfinite(cpu)) or wall < 1 or cpu < 0:
        raise EngineError(
            f"the device's clock gives {wall} ns of wall time and {cpu} ns of CPU time for a run",
            hint=_FINER,
        )
    return int(wall), int(cpu)


def check_ticks(engines: Iterable[Sequence[int]]) -> None:
    """Refuse a clock whose steps are long beside a run; times of one engine at one batch size each, in nanoseconds.

    Raises:
        EngineError: the smallest step between the times of one is more than 5 % of their median.
    """
    for times in engines:
        steps, run = np.diff(np.unique(np.asarray(times, dtype=np.int64))), float(np.median(times))
        if len(steps) and steps.min() > COARSE * run:  # a device that counts cycles may take the same time always
            raise EngineError(
                f"the device's clock counts in steps of {steps.min() / 1e6:.4g} ms, and a run takes {run / 1e6:.4g} ms",
                hint=_FINER,
            )
