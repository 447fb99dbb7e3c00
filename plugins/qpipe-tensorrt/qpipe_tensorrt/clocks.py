"""Clocks, temperature and throttling of a GPU through NVML. Not run here: no NVIDIA driver.

Source: NVML API reference (nvmlDeviceGetClockInfo, nvmlDeviceGetCurrentClocksEventReasons).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from qpipe.records.evidence import NotMeasured

LIBRARY = "libnvidia-ml.so.1"
_SM, _MEMORY = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
_SLOWED = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """One reading; compare one before and one after a timed run."""

    sm_mhz: int
    memory_mhz: int
    temperature_c: int
    slowed_by: tuple[str, ...]
    """Why clocks were below what was asked for at this moment; empty where they were not."""


def read_clocks(bus_id: str, library: str = LIBRARY) -> Clocks | NotMeasured:
    """Clocks of the GPU on that PCI bus (CUDA and NVML number GPUs differently), or why they cannot be read."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return NotMeasured(reason="no NVIDIA driver")
    if nvml.nvmlInit_v2() != 0:
        return NotMeasured(reason="NVML does not start")
    try:
        return _read(nvml, bus_id)
    finally:
        nvml.nvmlShutdown()


def _read(nvml: ctypes.CDLL, bus_id: str) -> Clocks | NotMeasured:
    handle = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByPciBusId_v2(bus_id.encode(), ctypes.byref(handle)) != 0:
        return NotMeasured(reason=f"NVML has no device {bus_id}")
    reasons = ctypes.c_ulonglong()
    if nvml.nvmlDeviceGetCurrentClocksEventReasons(handle, ctypes.byref(reasons)) != 0:
        return NotMeasured(reason="NVML does not tell why clocks are low")
    return Clocks(
        sm_mhz=_number(nvml.nvmlDeviceGetClockInfo, handle, _SM),
        memory_mhz=_number(nvml.nvmlDeviceGetClockInfo, handle, _MEMORY),
        temperature_c=_number(nvml.nvmlDeviceGetTemperature, handle, 0),
        slowed_by=tuple(name for bit, name in _SLOWED.items() if reasons.value & bit),
    )


def _number(call: ctypes._NamedFuncPointer, handle: ctypes.c_void_p, which: int) -> int:
    value = ctypes.c_uint()
    return value.value if call(handle, which, ctypes.byref(value)) == 0 else -1
