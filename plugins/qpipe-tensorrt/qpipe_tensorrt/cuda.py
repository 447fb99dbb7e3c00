"""The few calls of the CUDA driver API that a session needs, through ctypes: memory, streams, events, graphs.

Not run on a GPU here: no NVIDIA driver. Source: CUDA driver API reference 13.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p

from qpipe.errors import EngineError
from qpipe_tensorrt.driver import LIBRARY, error_name

_OUT_OF_MEMORY = "free memory on the GPU (nvidia-smi), or make `batch_sizes` smaller"
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetPCIBusId": (c_char_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
}


class Cuda:
    """The primary context of one GPU, and one stream in it.

    Raises:
        EngineError: a call of the driver failed; the message names the call and the error.
    """

    def __init__(self, device: int, library: str = LIBRARY) -> None:
        self._driver = ctypes.CDLL(library)
        for name, arguments in _SIGNATURES.items():
            getattr(self._driver, name).argtypes = arguments
        self._call("cuInit", 0)
        self._device = c_int()
        self._call("cuDeviceGet", byref(self._device), device)
        context = c_void_p()
        self._call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self._context = context
        self.enter()
        self._stream = c_void_p()
        self._call("cuStreamCreate", byref(self._stream), 1)  # CU_STREAM_NON_BLOCKING

    def enter(self) -> None:
        """Make the context that of the calling thread: each thread has its own."""
        self._call("cuCtxSetCurrent", self._context)

    @property
    def stream(self) -> int:
        """Handle for the vendor's API."""
        return self._stream.value or 0

    @property
    def bus_id(self) -> str:
        """Where the GPU sits: `domain:bus:device.function`, the same for CUDA and NVML."""
        text = ctypes.create_string_buffer(32)
        self._call("cuDeviceGetPCIBusId", text, len(text), self._device)
        return text.value.decode()

    def close(self) -> None:
        """Give stream and context back."""
        try:
            self._call("cuStreamDestroy_v2", self._stream)
        finally:
            self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def free_bytes(self) -> int:
        """Free memory of the device."""
        free, total = c_size_t(), c_size_t()
        self._call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value

    def allocate(self, size_bytes: int) -> int:
        """Address of new device memory."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), max(size_bytes, 1))
        return address.value

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cuMemFree_v2", address)

    def upload(self, address: int, host: int, size_bytes: int) -> None:
        """Copy host memory to the device, in the stream."""
        if size_bytes:
            self._call("cuMemcpyHtoDAsync_v2", address, host, size_bytes, self._stream)

    def download(self, host: int, address: int, size_bytes: int) -> None:
        """Copy device memory to the host, in the stream."""
        if size_bytes:
            self._call("cuMemcpyDtoHAsync_v2", host, address, size_bytes, self._stream)

    def wait(self) -> None:
        """Until the stream has done all that it was given."""
        self._call("cuStreamSynchronize", self._stream)

    def capture(self, enqueue: Callable[[], bool]) -> int | None:
        """Handle of an executable graph of what `enqueue` puts into the stream; None where that cannot be recorded.

        A recording that broke is ended with an error of its own, which says no more than that.
        """
        self._call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        graph, executable = c_void_p(), c_void_p()
        recorded = False
        try:
            recorded = enqueue()
        finally:
            ended = self._driver.cuStreamEndCapture(self._stream, byref(graph)) == 0
            if graph.value and not recorded:
                self._driver.cuGraphDestroy(graph)
        if not (recorded and ended and graph.value):
            return None
        self._call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        self._call("cuGraphDestroy", graph)
        return executable.value

    def launch(self, graph: int) -> None:
        """Put an executable graph into the stream."""
        self._call("cuGraphLaunch", graph, self._stream)

    def drop_graph(self, graph: int) -> None:
        """Give an executable graph back."""
        self._call("cuGraphExecDestroy", graph)

    def event(self) -> int:
        """A new event."""
        handle = c_void_p()
        self._call("cuEventCreate", byref(handle), 0)
        return handle.value or 0

    def record(self, event: int) -> None:
        """Put an event into the stream."""
        self._call("cuEventRecord", event, self._stream)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two events, once the second has happened."""
        self._call("cuEventSynchronize", end)
        milliseconds = c_float()
        self._call("cuEventElapsedTime", byref(milliseconds), start, end)
        return milliseconds.value

    def drop_event(self, event: int) -> None:
        """Give an event back."""
        self._call("cuEventDestroy_v2", event)

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            reason = error_name(self._driver, status)
            hint = _OUT_OF_MEMORY if status == 2 else "look at nvidia-smi and the kernel log"
            raise EngineError(f"CUDA: {name} failed: {reason}", hint=hint)
