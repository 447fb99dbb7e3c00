"""Driver, memory, events, graphs and NVML on any NVIDIA GPU, TensorRT or not. Not run here: no NVIDIA driver."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_size_t, c_ubyte, c_uint64, c_void_p

import numpy as np
import pytest
from qpipe_tensorrt.buffers import Buffers
from qpipe_tensorrt.clocks import Clocks, Gauge, open_gauge
from qpipe_tensorrt.cuda import Cuda
from qpipe_tensorrt.driver import NoGpu, find_gpus
from qpipe_tensorrt.telemetry import Telemetry, conditions

from qpipe.errors import EngineError

pytestmark = pytest.mark.gpu
SIZE_BYTES = 256 << 20


@pytest.fixture
def cuda():
    gpus = find_gpus()
    if isinstance(gpus, NoGpu):
        pytest.skip(f"not measured: {gpus.reason}")
    opened = Cuda(gpus[0].index)
    yield opened
    opened.close()


def fill(cuda, address, value, size_bytes=SIZE_BYTES):
    """Work for the stream: what an engine would be."""
    call = cuda._driver.cuMemsetD8Async
    call.argtypes = (c_uint64, c_ubyte, c_size_t, c_void_p)
    return call(address, value, size_bytes, cuda._stream) == 0


def read(cuda, address, count=16):
    back = np.zeros(count, np.uint8)
    cuda.download(back.ctypes.data, address, back.nbytes)
    cuda.wait()
    return back


def test_every_gpu_says_what_it_is(cuda):
    for gpu in find_gpus():
        assert gpu.name
        assert float(gpu.capability) >= 5
        assert gpu.driver
    assert len(cuda.bus_id.split(":")) == 3


def test_bytes_come_back_from_the_device(cuda):
    given = np.arange(1 << 20, dtype=np.float32)
    buffers = Buffers(cuda)
    address = buffers.address("x", given.nbytes)
    cuda.upload(address, given.ctypes.data, given.nbytes)
    assert np.array_equal(read(cuda, address, given.nbytes).view(np.float32), given)
    assert buffers.address("x", 4 * given.nbytes) != 0
    buffers.close()


def test_free_memory_and_running_out_of_it(cuda):
    free = cuda.free_bytes()
    address = cuda.allocate(SIZE_BYTES)
    assert free - cuda.free_bytes() >= SIZE_BYTES // 2, "other programs may have given memory back meanwhile"
    cuda.free(address)
    with pytest.raises(EngineError, match="cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY") as error:
        cuda.allocate(1 << 50)
    assert "batch_sizes" in error.value.hint
    assert cuda.free_bytes() > 0, "the context goes on"


def test_a_recorded_graph_does_again_what_was_recorded(cuda):
    address = cuda.allocate(SIZE_BYTES)
    graph = cuda.capture(lambda: fill(cuda, address, 7))
    assert graph is not None
    assert fill(cuda, address, 1)
    assert set(read(cuda, address)) == {1}, "recording runs nothing"
    cuda.launch(graph)
    assert set(read(cuda, address)) == {7}
    cuda.drop_graph(graph)
    cuda.free(address)


def test_what_cannot_be_recorded_leaves_the_stream_as_it_was(cuda):
    address = cuda.allocate(SIZE_BYTES)

    def synchronize() -> bool:
        try:
            cuda.wait()  # forbidden while recording: it breaks the recording
        except EngineError:
            return True
        return False

    assert cuda.capture(lambda: False) is None
    assert cuda.capture(synchronize) is None
    assert fill(cuda, address, 3)
    assert set(read(cuda, address)) == {3}
    cuda.free(address)


def test_a_session_is_timed_on_the_device(cuda):
    telemetry = Telemetry(cuda)
    address = cuda.allocate(SIZE_BYTES)
    telemetry.look_at_memory()
    took = []
    for size_bytes in (SIZE_BYTES, SIZE_BYTES // 64) * 5:
        telemetry.begin()
        telemetry.start()
        assert fill(cuda, address, 1, size_bytes)
        telemetry.stop()
        cuda.wait()
        telemetry.finish()
        took.append(telemetry.device_ns[0])
    assert min(took[2::2]) > min(took[3::2]), "64 times the bytes take longer"
    assert telemetry.memory_bytes >= SIZE_BYTES // 2
    assert telemetry.cold_ms > 0
    told = dict(conditions(telemetry.clocks()))
    assert told.keys() in ({"clocks"}, {"sm_mhz", "memory_mhz", "temperature_c", "slowed_by"})
    cuda.free(address)
    telemetry.close()


def test_nvml_finds_the_gpu_by_its_bus(cuda):
    gauge = open_gauge(cuda.bus_id)
    if not isinstance(gauge, Gauge):
        pytest.skip(f"not measured: {gauge.reason}")
    seen = gauge.read()
    gauge.close()
    assert isinstance(seen, Clocks)
    assert seen.sm_mhz is None or 0 < seen.sm_mhz < 10_000
    assert seen.temperature_c is None or 0 < seen.temperature_c < 120


def test_another_thread_enters_the_context(cuda):
    def work() -> int:
        cuda.enter()
        address = cuda.allocate(16)
        cuda.free(address)
        return address

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() > 0


def test_a_program_that_asked_for_gpus_starts_others_that_use_them(cuda):
    """`check` asks in the main process; engines run in programs of their own."""
    code = "from qpipe_tensorrt.cuda import Cuda; cuda = Cuda(0); print(cuda.free_bytes()); cuda.close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert int(done.stdout) > 0, done.stderr
