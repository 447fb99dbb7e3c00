"""Clocks, temperature and throttling of a GPU through NVML. Not run here: no NVIDIA driver.

Source: NVML API reference (nvmlDeviceGetClockInfo, nvmlDeviceGetCurrentClocksEventReasons).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from qpipe.records.evidence import NotMeasured

LIBRARY = "libnvidia-ml.so.1"
_SM, _MEMORY = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
_GPU = 0  # NVML_TEMPERATURE_GPU
_SLOWED = {
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
"""Bits of nvmlClocksEventReasons; 0x1, an idle GPU, slows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """One reading; None is what the GPU does not tell."""

    sm_mhz: int | None
    memory_mhz: int | None
    temperature_c: int | None
    slowed_by: tuple[str, ...]
    """Why clocks were below what was asked for at this moment; empty where they were not."""


def worst(first: Clocks, second: Clocks) -> Clocks:
    """Lowest clocks, highest temperature and every reason of both readings."""
    both = {*first.slowed_by, *second.slowed_by}
    return Clocks(
        sm_mhz=min(_told(first.sm_mhz, second.sm_mhz), default=None),
        memory_mhz=min(_told(first.memory_mhz, second.memory_mhz), default=None),
        temperature_c=max(_told(first.temperature_c, second.temperature_c), default=None),
        slowed_by=tuple(name for name in _SLOWED.values() if name in both),
    )


def _told(*values: int | None) -> list[int]:
    return [value for value in values if value is not None]


def slowed_by(reasons: int) -> tuple[str, ...]:
    """NVML's bits in words."""
    return tuple(name for bit, name in _SLOWED.items() if reasons & bit)


class Gauge:
    """NVML, open for one GPU."""

    def __init__(self, nvml: ctypes.CDLL, device: ctypes.c_void_p) -> None:
        self._nvml, self._device = nvml, device

    def read(self) -> Clocks:
        """What the GPU says now."""
        return Clocks(
            sm_mhz=self._number("nvmlDeviceGetClockInfo", _SM),
            memory_mhz=self._number("nvmlDeviceGetClockInfo", _MEMORY),
            temperature_c=self._number("nvmlDeviceGetTemperature", _GPU),
            slowed_by=slowed_by(self._reasons()),
        )

    def close(self) -> None:
        """Let NVML go."""
        self._nvml.nvmlShutdown()

    def _reasons(self) -> int:
        """Drivers before 535 have the call under its older name."""
        value = ctypes.c_ulonglong()
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            call = getattr(self._nvml, name, None)
            if call is not None and call(self._device, ctypes.byref(value)) == 0:
                return value.value
        return 0

    def _number(self, name: str, which: int) -> int | None:
        value, call = ctypes.c_uint(), getattr(self._nvml, name, None)
        return value.value if call is not None and call(self._device, which, ctypes.byref(value)) == 0 else None


def open_gauge(bus_id: str, library: str = LIBRARY) -> Gauge | NotMeasured:
    """NVML for the GPU on that PCI bus (CUDA and NVML number GPUs differently), or why there is none."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return NotMeasured(reason="no NVML")
    if nvml.nvmlInit_v2() != 0:
        return NotMeasured(reason="NVML does not start")
    device = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByPciBusId_v2(bus_id.encode(), ctypes.byref(device)) != 0:
        nvml.nvmlShutdown()
        return NotMeasured(reason=f"NVML has no device {bus_id}")
    return Gauge(nvml, device)
