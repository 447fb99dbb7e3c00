"""The driver's calls through ctypes, held against a library with CUDA's symbols that computes on the host.

It shows that names, argument types and their order fit together. It is no GPU: nothing here is a measurement.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from qpipe_tensorrt import clocks, driver
from qpipe_tensorrt.buffers import Buffers
from qpipe_tensorrt.clocks import Clocks, open_gauge, slowed_by, worst
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
    [
        (999, 2, "the NVIDIA driver does not start (cuInit: error 999)"),
        (2, 2, "the NVIDIA driver does not start (cuInit: CUDA_ERROR_OUT_OF_MEMORY)"),
        (100, 2, "no NVIDIA GPU"),
        (0, 0, "no NVIDIA GPU"),
    ],
)
def test_a_driver_without_gpus_says_why(library, init, count, reason):
    assert find_gpus(library(init, count)).reason == reason


def test_no_driver():
    assert find_gpus("libcuda-that-is-not-there.so") == NoGpu(
        reason="no NVIDIA driver", hint="run this target on a machine with its GPU and driver"
    )
    assert open_gauge("0000:17:00.0", "libnvml-that-is-not-there.so") == NotMeasured(reason="no NVML")


def test_clocks_and_throttling_are_read_from_the_gpu_on_that_bus(library):
    bus = Cuda(0, library()).bus_id
    gauge = open_gauge(bus, library())
    found = gauge.read()
    gauge.close()
    assert found == Clocks(
        sm_mhz=1980, memory_mhz=3201, temperature_c=41, slowed_by=("software power cap", "hardware thermal slowdown")
    )
    assert conditions(found)[-1] == ("slowed_by", "software power cap, hardware thermal slowdown")
    assert open_gauge("0000:65:00.0", library()) == NotMeasured(reason="NVML has no device 0000:65:00.0")
    assert conditions(open_gauge(bus, library(init=999))) == (("clocks", "not measured: NVML does not start"),)


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        (0x0, ()),
        (0x1, ()),
        (0x24, ("software power cap", "software thermal slowdown")),
        (0x1FE, tuple(clocks._SLOWED.values())),
    ],
)
def test_throttling_in_words(bits, told):
    """An idle GPU (bit 0) is slowed by nothing."""
    assert slowed_by(bits) == told


def test_of_two_readings_the_worst_is_kept():
    cool = Clocks(sm_mhz=1980, memory_mhz=3201, temperature_c=41, slowed_by=())
    hot = Clocks(sm_mhz=1200, memory_mhz=None, temperature_c=88, slowed_by=("software thermal slowdown",))
    assert worst(cool, hot) == worst(hot, cool) == replace(hot, memory_mhz=3201)
    unknown = Clocks(sm_mhz=None, memory_mhz=None, temperature_c=None, slowed_by=())
    assert worst(unknown, unknown) == unknown
    assert dict(conditions(unknown))["sm_mhz"].startswith("not measured")


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
    graph = cuda.capture(lambda: True)
    cuda.launch(graph)
    cuda.drop_graph(graph)
    assert cuda.capture(lambda: False) is None
    cuda.close()


def test_an_error_names_call_and_reason(library):
    with pytest.raises(EngineError, match="cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY") as error:
        Cuda(0, library()).allocate(2 << 20)
    assert "batch_sizes" in error.value.hint


def test_buffers_only_grow(library):
    cuda = Cuda(0, library())
    free, buffers = cuda.free_bytes(), Buffers(cuda)
    first = buffers.address("x", 100)
    assert buffers.address("x", 50) == first
    buffers.address("x", 1000)
    assert (buffers.size_bytes, free - cuda.free_bytes()) == (1000, 1000)
    with pytest.raises(EngineError, match="OUT_OF_MEMORY"):
        buffers.address("x", 2 << 20)
    assert (buffers.size_bytes, free - cuda.free_bytes()) == (0, 0), "what was given up is not given back twice"
    buffers.close()
    assert buffers.size_bytes == 0
