"""What the runs of one session took on its GPU: device time by events, the first run, memory, clocks.

The core reads all of it where it times any session; there is no second profiler. Not run on a GPU here: no NVIDIA
driver. Source: CUDA driver API reference (cuEventElapsedTime, cuMemGetInfo).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from qpipe_tensorrt.clocks import LIBRARY, Clocks, Gauge, open_gauge, worst

if TYPE_CHECKING:
    from qpipe.records.evidence import NotMeasured
    from qpipe_tensorrt.cuda import Cuda


_LOOK_EVERY_NS = 200_000_000
"""A GPU that is asked after its work is idle, and slowed by nothing: it is asked between runs too, but seldom."""


class Telemetry:
    """Begin it before the engine is loaded: memory is counted from there."""

    def __init__(self, cuda: Cuda, nvml: str = LIBRARY) -> None:
        self._cuda, self._gauge = cuda, open_gauge(cuda.bus_id, nvml)
        self._worst: Clocks | None = None
        self._looked_ns = 0
        self._first, self._last = cuda.event(), cuda.event()
        self._free_before_bytes = self._least_free_bytes = cuda.free_bytes()
        self._begun_ns = self._cpu_ns = 0
        self.device_ns = (0, 0)
        """Of the last run: between the two events, and CPU time of the calling thread."""
        self.cold_ms: float | None = None
        """Wall time of the very first run: kernels are loaded, or compiled, then."""

    @property
    def memory_bytes(self) -> int:
        """Most device memory that engine, context, buffers and recorded graphs took so far."""
        return max(self._free_before_bytes - self._least_free_bytes, 0)

    def begin(self) -> None:
        """A run begins on the host."""
        self._begun_ns, self._cpu_ns = time.perf_counter_ns(), time.thread_time_ns()

    def start(self) -> None:
        """Inputs are in the stream; what is put there next is timed."""
        self._cuda.record(self._first)

    def stop(self) -> None:
        """The inference is in the stream; outputs follow."""
        self._cuda.record(self._last)

    def finish(self) -> None:
        """The stream is done."""
        now_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns() - self._cpu_ns
        elapsed_ns = round(self._cuda.elapsed_ms(self._first, self._last) * 1e6)
        self.device_ns = (max(elapsed_ns, 1), cpu_ns)
        if self.cold_ms is None:
            self.cold_ms = (now_ns - self._begun_ns) / 1e6
        if now_ns - self._looked_ns > _LOOK_EVERY_NS:
            self._looked_ns = now_ns
            self._look_at_clocks()

    def look_at_memory(self) -> None:
        """Ask the driver; only where memory can have grown, since the call is not free."""
        self._least_free_bytes = min(self._least_free_bytes, self._cuda.free_bytes())

    def clocks(self) -> Clocks | NotMeasured:
        """The worst clocks, heat and throttling of this GPU since the last time they were asked for."""
        self._look_at_clocks()
        found, self._worst = self._worst, None
        return found if found is not None else cast("NotMeasured", self._gauge)

    def _look_at_clocks(self) -> None:
        if isinstance(self._gauge, Gauge):
            seen = self._gauge.read()
            self._worst = seen if self._worst is None else worst(self._worst, seen)

    def close(self) -> None:
        """Give the events back."""
        self._cuda.drop_event(self._first)
        self._cuda.drop_event(self._last)
        if isinstance(self._gauge, Gauge):
            self._gauge.close()


def conditions(clocks: Clocks | NotMeasured) -> tuple[tuple[str, str], ...]:
    """Names and values for the core's profile."""
    if not isinstance(clocks, Clocks):
        return (("clocks", f"not measured: {clocks.reason}"),)
    return (
        *(
            (name, "not measured: NVML does not tell" if value is None else str(value))
            for name, value in (
                ("sm_mhz", clocks.sm_mhz),
                ("memory_mhz", clocks.memory_mhz),
                ("temperature_c", clocks.temperature_c),
            )
        ),
        ("slowed_by", ", ".join(clocks.slowed_by) or "nothing"),
    )
