"""The driver's calls through ctypes, held against a library with CUDA's symbols that computes on the host.

It shows that names, argument types and their order fit together. It is no GPU: nothing here is a measurement.
"""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from qpipe_tensorrt import driver
from qpipe_tensorrt.buffers import Buffers
from qpipe_tensorrt.clocks import read_clocks
from qpipe_tensorrt.cuda import Cuda
from qpipe_tensorrt.driver import NoGpu, find_gpus, serving

from qpipe.errors import EngineError
from qpipe.records.evidence import NotMeasured

SOURCE = """
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <stddef.h>
typedef void *P;
int cuInit(unsigned f) { return INIT; }
int cuDeviceGetCount(int *n) { *n = COUNT; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, d ? "NVIDIA H200" : "NVIDIA RTX A6000", n); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 + d : (a == 76 ? (d ? 0 : 6) : -1); return 0; }
int cuDriverGetVersion(int *v) { *v = 13010; return 0; }
int cuDevicePrimaryCtxRetain(P *c, int d) { *c = (P)7; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return 0; }
int cuCtxSetCurrent(P c) { return c == (P)7 ? 0 : 201; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { *f = (size_t)5 << 33; *t = (size_t)6 << 33; return 0; }
int cuMemAlloc_v2(uint64_t *a, size_t n) {
  if (n > 1u << 20) return 2;
  *a = (uint64_t)malloc(n);
  return 0;
}
int cuMemFree_v2(uint64_t a) { free((void *)a); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t d, void *s, size_t n, P q) { memcpy((void *)d, s, n); return q == (P)9 ? 0 : 1; }
int cuMemcpyDtoHAsync_v2(void *d, uint64_t s, size_t n, P q) { memcpy(d, (void *)s, n); return q == (P)9 ? 0 : 1; }
int cuStreamCreate(P *s, unsigned f) { *s = (P)9; return f == 1 ? 0 : 1; }
int cuStreamSynchronize(P s) { return s == (P)9 ? 0 : 1; }
int cuStreamDestroy_v2(P s) { return 0; }
int cuStreamBeginCapture_v2(P s, int m) { return m == 1 ? 0 : 1; }
int cuStreamEndCapture(P s, P *g) { *g = (P)11; return 0; }
int cuGraphInstantiateWithFlags(P *e, P g, uint64_t f) { *e = (P)13; return g == (P)11 && f == 0 ? 0 : 1; }
int cuGraphLaunch(P e, P s) { return e == (P)13 && s == (P)9 ? 0 : 1; }
int cuGraphExecDestroy(P e) { return 0; }
int cuGraphDestroy(P g) { return 0; }
int cuEventCreate(P *e, unsigned f) { *e = malloc(1); return 0; }
int cuEventRecord(P e, P s) { return s == (P)9 ? 0 : 1; }
int cuEventSynchronize(P e) { return 0; }
int cuEventElapsedTime(float *ms, P a, P b) { *ms = 1.5f; return a != b ? 0 : 1; }
int cuEventDestroy_v2(P e) { free(e); return 0; }
int cuGetErrorName(int c, const char **s) { *s = c == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : 0; return 0; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Compiles the library, for a machine with two GPUs unless said otherwise."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("cuda")
    (folder / "cuda.c").write_text(SOURCE)

    def make(init=0, count=2):
        made = folder / f"libcuda-{init}-{count}.so"
        defines = [f"-DINIT={init}", f"-DCOUNT={count}"]
        command = [compiler, "-shared", "-fPIC", "-w", *defines, "-o", str(made), str(folder / "cuda.c")]
        subprocess.run(command, check=True)
        return str(made)

    return make


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
    assert read_clocks(0, "libnvml-that-is-not-there.so") == NotMeasured(reason="no NVIDIA driver")


def test_memory_stream_events_and_graphs(library):
    cuda = Cuda(0, library())
    assert cuda.free_bytes() == 5 << 33
    given, back = np.arange(6, dtype=np.float32), np.zeros(6, np.float32)
    address = cuda.allocate(given.nbytes)
    cuda.upload(address, given.ctypes.data, given.nbytes)
    cuda.download(back.ctypes.data, address, back.nbytes)
    cuda.wait()
    assert np.array_equal(given, back)
    cuda.free(address)
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
