"""What the runs of one session took on its GPU: device time by events, the first run, memory, clocks.

The core reads all of it where it times any session; there is no second profiler. Not run on a GPU here: no NVIDIA
driver. Source: CUDA driver API reference (cuEventElapsedTime, cuMemGetInfo).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qpipe_tensorrt.clocks import LIBRARY, Clocks, read_clocks

if TYPE_CHECKING:
    from qpipe.records.evidence import NotMeasured
    from qpipe_tensorrt.cuda import Cuda


class Telemetry:
    """Begin it before the engine is loaded: memory is counted from there."""

    def __init__(self, cuda: Cuda, nvml: str = LIBRARY) -> None:
        self._cuda, self._nvml = cuda, nvml
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
        return self._free_before_bytes - self._least_free_bytes

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
        cpu_ns, wall_ns = time.thread_time_ns() - self._cpu_ns, time.perf_counter_ns() - self._begun_ns
        elapsed_ns = round(self._cuda.elapsed_ms(self._first, self._last) * 1e6)
        self.device_ns = (max(elapsed_ns, 1), cpu_ns)
        if self.cold_ms is None:
            self.cold_ms = wall_ns / 1e6

    def look_at_memory(self) -> None:
        """Ask the driver; only where memory can have grown, since the call is not free."""
        self._least_free_bytes = min(self._least_free_bytes, self._cuda.free_bytes())

    def clocks(self) -> Clocks | NotMeasured:
        """Clocks, heat and throttling of this GPU now."""
        return read_clocks(self._cuda.bus_id, self._nvml)

    def close(self) -> None:
        """Give the events back."""
        self._cuda.drop_event(self._first)
        self._cuda.drop_event(self._last)


def conditions(clocks: Clocks | NotMeasured) -> tuple[tuple[str, str], ...]:
    """Names and values for the core's profile."""
    if not isinstance(clocks, Clocks):
        return (("clocks", f"not measured: {clocks.reason}"),)
    return (
        ("sm_mhz", str(clocks.sm_mhz)),
        ("memory_mhz", str(clocks.memory_mhz)),
        ("temperature_c", str(clocks.temperature_c)),
        ("slowed_by", ", ".join(clocks.slowed_by) or "nothing"),
    )
