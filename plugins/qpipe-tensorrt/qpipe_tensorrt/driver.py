"""What the CUDA driver says about this machine's GPUs, asked through ctypes: no package, no vendor import.

Source: CUDA driver API reference (cuInit, cuDeviceGetCount, cuDeviceGetAttribute).
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE: `CUDA_VISIBLE_DEVICES` hides them all
_VERSION_FILE = Path("/sys/module/nvidia/version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU of this machine."""

    index: int
    name: str
    capability: str
    driver: str
    """Version of the kernel module, or `CUDA x.y` where the system does not tell."""

    @property
    def fingerprint(self) -> str:
        """What a measurement depends on."""
        return f"{self.name} (compute capability {self.capability}), driver {self.driver}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoGpu:
    """Why nothing can run here."""

    reason: str
    hint: str = ""


def find_gpus(library: str = LIBRARY) -> tuple[Gpu, ...] | NoGpu:
    """All GPUs that CUDA shows to this process (`CUDA_VISIBLE_DEVICES` counts)."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return NoGpu(reason="no NVIDIA driver", hint="run this target on a machine with its GPU and driver")
    status = cuda.cuInit(0)
    if status not in (0, _NO_DEVICE):
        reason = f"the NVIDIA driver does not start (cuInit: {error_name(cuda, status)})"
        return NoGpu(reason=reason, hint="look at nvidia-smi")
    count = ctypes.c_int()
    if cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return NoGpu(reason="no NVIDIA GPU", hint="see CUDA_VISIBLE_DEVICES")
    driver = _driver_version(cuda)
    return tuple(_gpu(cuda, index, driver) for index in range(count.value))


def serving(gpus: tuple[Gpu, ...] | NoGpu, capabilities: Collection[str]) -> Gpu | None:
    """The first GPU that has one of these compute capabilities."""
    found = () if isinstance(gpus, NoGpu) else gpus
    return next((gpu for gpu in found if gpu.capability in capabilities), None)


def error_name(cuda: ctypes.CDLL, status: int) -> str:
    """What the driver calls an error."""
    text = ctypes.c_char_p()
    cuda.cuGetErrorName(status, ctypes.byref(text))
    return text.value.decode() if text.value else f"error {status}"


def _gpu(cuda: ctypes.CDLL, index: int, driver: str) -> Gpu:
    device = ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(128)
    cuda.cuDeviceGetName(name, len(name), device)
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        numbers.append(str(value.value))
    return Gpu(index=index, name=name.value.decode(), capability=".".join(numbers), driver=driver)


def _driver_version(cuda: ctypes.CDLL) -> str:
    if _VERSION_FILE.is_file():
        return _VERSION_FILE.read_text().strip()
    version = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
