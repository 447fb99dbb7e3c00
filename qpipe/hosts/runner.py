"""Runs on the device: answers requests on standard input with outputs and times on standard output.

Only the standard library, numpy and the runtime are needed there. A request or answer is one line of JSON
(`{"arrays": [{"dtype", "shape"}], ...}`) and then the bytes of the arrays, in order. At the end of input the runner
removes its own folder: also when the machine that started it has gone.
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
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

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


class LiteRt:
    """A `.tflite`; arrays in the order of the file."""

    def __init__(self, path: str, threads: int, kernels: str) -> None:
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = OpResolverType.BUILTIN
        if kernels == "reference":
            resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.engine = Interpreter(path, num_threads=threads, experimental_op_resolver_type=resolver)
        self.engine.allocate_tensors()
        self.version = "ai-edge-litert " + version("ai-edge-litert")

    def borders(self) -> list[list[Header]]:
        """Types and quantization of inputs and outputs."""
        sides = self.engine.get_input_details(), self.engine.get_output_details()
        return [
            [
                {"dtype": d["dtype"].__name__, "scale": float(d["quantization"][0]), "zero": int(d["quantization"][1])}
                for d in s
            ]
            for s in sides
        ]

    def prepare(self, arrays: list[Array]) -> None:
        """Resize and set inputs, outside the timed part."""
        details = self.engine.get_input_details()
        if any(tuple(d["shape"]) != a.shape for d, a in zip(details, arrays, strict=True)):
            for detail, array in zip(details, arrays, strict=True):
                self.engine.resize_tensor_input(detail["index"], array.shape)
            self.engine.allocate_tensors()
        for detail, array in zip(details, arrays, strict=True):
            self.engine.set_tensor(detail["index"], array)

    def invoke(self) -> None:
        """The timed part."""
        self.engine.invoke()

    def outputs(self) -> list[Array]:
        """Copies, in the order of the file."""
        return [self.engine.get_tensor(d["index"]) for d in self.engine.get_output_details()]


class Onnx:
    """An ONNX graph; arrays in the order of the graph."""

    def __init__(self, path: str, threads: int, kernels: str) -> None:  # noqa: ARG002 - runtimes are made alike
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.engine = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.engine.get_inputs()]
        self.version = "onnxruntime " + onnxruntime.__version__
        self.feed: dict[str, Array] = {}
        self.found: list[Array] = []

    def borders(self) -> list[list[Header]]:
        """Nothing is quantized at the border of an ONNX graph."""
        return [[], []]

    def prepare(self, arrays: list[Array]) -> None:
        """Keep the inputs."""
        self.feed = dict(zip(self.names, arrays, strict=True))

    def invoke(self) -> None:
        """The timed part."""
        self.found = self.engine.run(None, self.feed)

    def outputs(self) -> list[Array]:
        """As onnxruntime gave them."""
        return self.found


RUNTIMES: dict[str, type[LiteRt] | type[Onnx]] = {"litert": LiteRt, "onnxruntime": Onnx}


def serve(runtime: str, path: str, threads: int, kernels: str) -> None:
    """Load once, then answer until the end of input."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print to stdout; answers must stay clean
    begin = time.perf_counter()
    engine = RUNTIMES[runtime](path, threads, kernels)
    load_ms = (time.perf_counter() - begin) * 1e3
    inputs, outputs = engine.borders()
    hello = {"load_ms": load_ms, "version": engine.version, "inputs": inputs, "outputs": outputs}
    write_message(answers, dict(hello, conditions=conditions()), [])
    requests = sys.stdin.buffer
    while True:
        line = requests.readline()
        if not line:
            return
        engine.prepare(read_arrays(requests, json.loads(line)))
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        engine.invoke()
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        write_message(answers, {"wall_ns": wall, "cpu_ns": cpu, "peak_rss_bytes": peak}, engine.outputs())


def main(arguments: list[str]) -> None:
    """`runner.py RUNTIME FILE THREADS KERNELS`."""
    folder = Path(__file__).resolve().parent
    try:
        serve(arguments[0], str(folder / arguments[1]), int(arguments[2]), arguments[3])
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
