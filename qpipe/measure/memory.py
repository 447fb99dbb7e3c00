"""Peak resident memory of loading and running one engine, in a process that does nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qpipe.errors import EngineError
from qpipe.measure.feeds import Feeds
from qpipe.plugins.backend import OnDevice, Session

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """Peak resident set of the process that loaded and ran one engine: this one, or the one on the device."""

    peak_rss_bytes: int
    """Of the whole process, interpreter and runtime included: what a host must have."""
    before_bytes: int
    """Resident before loading: the interpreter and what was imported until then."""

    @property
    def engine_bytes(self) -> int:
        """What loading and running added."""
        return self.peak_rss_bytes - self.before_bytes


def peak_memory(open_session: Callable[[], Session], feeds: Feeds, runs: int = 3) -> PeakMemory:
    """Open a session, run every feed `runs` times, and read the peak.

    Call it in a fresh process: memory that others freed is not given back. The kernel's peak (VmHWM) is reset first,
    so that imports do not count as peak; `ru_maxrss` is not used, since a child inherits its parent's.

    Raises:
        EngineError: this kernel does not tell the peak.
    """
    _reset_peak()
    before = _kilobytes("VmRSS") * 1024
    session = open_session()
    try:
        for _ in range(runs):
            for size in feeds:
                for inputs in feeds[size]:
                    session.run(inputs)
        if isinstance(session, OnDevice):  # the memory of this process says nothing of the device's
            before, peak = session.device_memory_bytes
            return PeakMemory(peak_rss_bytes=peak, before_bytes=before)
        return PeakMemory(peak_rss_bytes=_kilobytes("VmHWM") * 1024, before_bytes=before)
    finally:
        session.close()


def _reset_peak() -> None:
    """Set VmHWM to what is resident now. Source: proc(5), /proc/pid/clear_refs, value 5."""
    # A sandbox may forbid it: the peak then covers the imports too, and is still the peak of this process.
    with suppress(OSError):
        _CLEAR.write_text("5")


def _kilobytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise EngineError(f"this kernel's {_STATUS} has no {name}: memory cannot be measured here")
