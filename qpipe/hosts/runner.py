"""Runs on the device: answers requests on standard input with outputs and times on standard output.

Only the standard library, numpy and the runtime are needed there. A request or answer is one line of JSON
(`{"arrays": [{"dtype", "shape"}], ...}`) and then the bytes of the arrays, in order; `"ask": "conditions"` asks for
clock and heat instead of a run. At the end of input the runner removes its own folder: also when the machine that
started it has gone.
"""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import shutil
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Header = dict[str, object]


def read_arrays(stream: BinaryIO, header: Header) -> list[Array]:
    """The arrays that a header announces."""
    import numpy as np

    arrays: list[Array] = []
    for spec in cast("list[dict[str, object]]", header["arrays"]):
        dtype, shape = np.dtype(str(spec["dtype"])), cast("list[int]", spec["shape"])
        wanted = math.prod(shape) * dtype.itemsize
        data = stream.read(wanted)
        if len(data) != wanted:
            raise EOFError
        arrays.append(np.frombuffer(data, dtype).reshape(shape))
    return arrays


def write_message(stream: BinaryIO, fields: Header, arrays: list[Array]) -> None:
    """One line of JSON, then the bytes."""
    import numpy as np

    header = dict(fields, arrays=[{"dtype": a.dtype.name, "shape": list(a.shape)} for a in arrays])
    stream.write(json.dumps(header).encode() + b"\n")
    for array in arrays:
        stream.write(np.ascontiguousarray(array).tobytes())
    stream.flush()


def first_line(path: str) -> str:
    """First line of a small file, or empty."""
    try:
        with Path(path).open() as file:
            return file.readline().strip()
    except OSError:
        return ""


def conditions() -> dict[str, str]:
    """Clock and heat: what a latency on a device depends on."""
    found = {"machine": platform.machine(), "system": platform.platform(terse=True)}
    found["governor"] = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    found["cpu0_khz"] = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp"))[:8]
    heat = [first_line(str(path)) for path in zones]
    found["thermal_millidegrees"] = " ".join(value for value in heat if value)
    return {key: value for key, value in found.items() if value}


def peak_rss_bytes() -> int:
    """Peak resident set of this process; the kernel's VmHWM, since `ru_maxrss` is inherited from the parent."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Engine(Protocol):
    """What `open_engine(path, threads, kernels)` of a `runtime.py` gives; arrays in the order of the file."""

    version: str

    def borders(self) -> list[list[Header]]:
        """Types and quantization of inputs and outputs; empty where nothing is quantized."""
        ...

    def prepare(self, arrays: list[Array]) -> None:
        """Take inputs, outside the timed part."""
        ...

    def invoke(self) -> None:
        """The timed part."""
        ...

    def outputs(self) -> list[Array]:
        """Outputs of the last `invoke`."""
        ...


class RuntimeModule(Protocol):
    """The `runtime.py` that was pushed beside this file."""

    def open_engine(self, path: str, threads: int, kernels: str) -> Engine:
        """Load the engine."""
        ...


def load_runtime(folder: Path) -> RuntimeModule:
    """The module in `runtime.py`."""
    spec = spec_from_file_location("runtime", folder / "runtime.py")
    if spec is None or spec.loader is None:
        raise ImportError("runtime.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("RuntimeModule", module)


def serve(folder: Path, name: str, threads: int, kernels: str) -> None:
    """Load once, then answer until the end of input."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print to stdout; answers must stay clean
    before = peak_rss_bytes()
    begin = time.perf_counter()
    engine = load_runtime(folder).open_engine(str(folder / name), threads, kernels)
    load_ms = (time.perf_counter() - begin) * 1e3
    inputs, outputs = engine.borders()
    hello = {"load_ms": load_ms, "version": engine.version, "inputs": inputs, "outputs": outputs}
    write_message(answers, dict(hello, conditions=conditions(), before_rss_bytes=before), [])
    requests = sys.stdin.buffer
    while True:
        line = requests.readline()
        if not line:
            return
        request = json.loads(line)
        if request.get("ask") == "conditions":
            write_message(answers, {"conditions": conditions()}, [])
            continue
        engine.prepare(read_arrays(requests, request))
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        engine.invoke()
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        times: Header = {"wall_ns": wall, "cpu_ns": cpu, "peak_rss_bytes": peak_rss_bytes()}
        write_message(answers, times, engine.outputs())


def main(arguments: list[str]) -> None:
    """`runner.py FILE THREADS KERNELS`, with `runtime.py` beside it."""
    folder = Path(__file__).resolve().parent
    try:
        serve(folder, arguments[0], int(arguments[1]), arguments[2])
    except EOFError:
        pass
    except Exception as problem:  # noqa: BLE001 - whatever the runtime raises becomes one line for the other side
        sys.stderr.write(f"{type(problem).__name__}: {' '.join(str(problem).split())[:250]}\n")
        sys.exit(1)
    finally:
        if folder.name.startswith("qpipe-"):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
