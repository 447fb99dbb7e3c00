"""The driver's calls through ctypes, held against a library with CUDA's symbols that computes on the host.

It shows that names, argument types and their order fit together. It is no GPU: nothing here is a measurement.
"""

from __future__ import annotations

import numpy as np
import pytest
from qpipe_tensorrt import driver
from qpipe_tensorrt.buffers import Buffers
from qpipe_tensorrt.clocks import Clocks, read_clocks
from qpipe_tensorrt.cuda import Cuda
from qpipe_tensorrt.driver import NoGpu, find_gpus, serving
from qpipe_tensorrt.telemetry import conditions

from qpipe.errors import EngineError
from qpipe.records.evidence import NotMeasured


def test_gpus_with_name_capability_and_driver(library, monkeypatch, tmp_path):
    monkeypatch.setattr(driver, "_VERSION_FILE", tmp_path / "none")
    first, second = find_gpus(library())
    assert (first.index, first.name, first.capability, first.driver) == (0, "NVIDIA RTX A6000", "8.6", "CUDA 13.1")
    assert (second.index, second.name, second.capability) == (1, "NVIDIA H200", "9.0")
    assert serving((first, second), ("9.0", "8.9")) == second
    assert serving((first, second), ("8.9",)) is None
    assert serving(NoGpu(reason="none"), ("9.0",)) is None
    (tmp_path / "none").write_text("580.95.05\n")
    assert find_gpus(library())[0].fingerprint == "NVIDIA RTX A6000 (compute capability 8.6), driver 580.95.05"


@pytest.mark.parametrize(
    ("init", "count", "reason"),
    [(999, 2, "the NVIDIA driver does not start (cuInit: error 999)"), (0, 0, "no NVIDIA GPU")],
)
def test_a_driver_without_gpus_says_why(library, init, count, reason):
    assert find_gpus(library(init, count)).reason == reason


def test_no_driver():
    assert find_gpus("libcuda-that-is-not-there.so") == NoGpu(
        reason="no NVIDIA driver", hint="run this target on a machine with its GPU and driver"
    )
    assert read_clocks("0000:17:00.0", "libnvml-that-is-not-there.so") == NotMeasured(reason="no NVIDIA driver")


def test_clocks_and_throttling_are_read_from_the_gpu_on_that_bus(library):
    bus = Cuda(0, library()).bus_id
    found = read_clocks(bus, library())
    assert found == Clocks(
        sm_mhz=1980, memory_mhz=3201, temperature_c=41, slowed_by=("software power cap", "hardware thermal slowdown")
    )
    assert conditions(found)[-1] == ("slowed_by", "software power cap, hardware thermal slowdown")
    assert read_clocks("0000:65:00.0", library()) == NotMeasured(reason="NVML has no device 0000:65:00.0")
    assert conditions(read_clocks(bus, library(init=999))) == (("clocks", "not measured: NVML does not start"),)


def test_memory_stream_events_and_graphs(library):
    cuda = Cuda(0, library())
    free = cuda.free_bytes()
    given, back = np.arange(6, dtype=np.float32), np.zeros(6, np.float32)
    address = cuda.allocate(given.nbytes)
    assert cuda.free_bytes() == free - given.nbytes
    cuda.upload(address, given.ctypes.data, given.nbytes)
    cuda.download(back.ctypes.data, address, back.nbytes)
    cuda.wait()
    assert np.array_equal(given, back)
    cuda.free(address)
    assert cuda.free_bytes() == free
    first, last = cuda.event(), cuda.event()
    cuda.record(first)
    cuda.record(last)
    assert cuda.elapsed_ms(first, last) == 1.5
    cuda.drop_event(first)
    cuda.drop_event(last)
    with cuda.capture() as handles:
        pass
    cuda.launch(handles[0])
    cuda.drop_graph(handles[0])
    cuda.close()


def test_an_error_names_call_and_reason(library):
    with pytest.raises(EngineError, match="cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY"):
        Cuda(0, library()).allocate(2 << 20)


def test_buffers_grow_and_void_recorded_graphs(library):
    buffers = Buffers(Cuda(0, library()))
    first, epoch = buffers.address("x", 100), buffers.epoch
    assert (buffers.address("x", 50), buffers.epoch) == (first, epoch)
    buffers.address("x", 1000)
    assert buffers.epoch == epoch + 1
    assert buffers.size_bytes == 1000
    buffers.close()
    assert buffers.size_bytes == 0
