"""An engine on a device: one runner process there, requests and answers through its standard streams."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.hosts.device import Device
from qpipe.hosts.program import last_line, stop_group

Array = NDArray[np.generic]
RUNNER = Path(__file__).parent / "runner.py"
ONNXRUNTIME = Path(__file__).parent / "runtime_onnxruntime.py"
_START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """Type of one input or output of the file; scale 0 where it is not quantized."""

    dtype: str
    scale: float
    zero: int
    name: str = ""
    """As the file has it, where the runtime tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the runner says once the engine is loaded."""

    load_ms: float
    version: str
    inputs: tuple[Border, ...]
    outputs: tuple[Border, ...]
    conditions: tuple[tuple[str, str], ...]
    """Machine, governor, clock and temperatures, as the device has them."""
    before_rss_bytes: int = 0
    """Peak resident set of the runner before the runtime was loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Outputs of one run, with the device's own clocks around the runtime's call alone."""

    outputs: tuple[Array, ...]
    wall_ns: int
    cpu_ns: int
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What runs there."""

    file: Path
    runtime: Path
    """The device-side module: `open_engine(path, threads, kernels)`."""
    threads: int = 1
    kernels: str = ""
    """What the runtime's module takes as kernels; empty leaves it the choice."""
    beside: tuple[Path, ...] = ()
    """More files of the engine, pushed under their own names into the same folder."""


class RemoteEngine:
    """Push the engine and the runner, start it, and talk to it until `close`."""

    hello: Hello

    def __init__(self, device: Device, job: Job, *, timeout_s: float) -> None:
        self._device = device
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        try:
            device.push(RUNNER, "runner.py")
            for file in (job.file, *job.beside):
                device.push(file, file.name)
            device.push(job.runtime, "runtime.py")
            arguments = ("runner.py", job.file.name, str(job.threads), job.kernels)
            self._process = subprocess.Popen(
                device.command(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
            self.hello = _hello(self._receive(max(timeout_s, _START_S))[0])
        except BaseException:
            self.close()
            raise

    def run(self, arrays: tuple[Array, ...]) -> Answer:
        """One run on the device.

        Raises:
            EngineError: the device went away, the runtime failed, or no answer came in time.
        """
        specs = [{"dtype": array.dtype.name, "shape": list(array.shape)} for array in arrays]
        payload = json.dumps({"arrays": specs}).encode() + b"\n" + b"".join(a.tobytes() for a in arrays)
        header, outputs = self._receive(self._timeout_s, payload)
        try:
            return Answer(
                outputs=outputs,
                wall_ns=_whole(header, "wall_ns"),
                cpu_ns=_whole(header, "cpu_ns"),
                peak_rss_bytes=_whole(header, "peak_rss_bytes"),
            )
        except KeyError as problem:
            raise EngineError(f"the runner gave another answer than expected: {problem}") from problem

    def conditions(self) -> tuple[tuple[str, str], ...]:
        """Machine, governor, clock and temperatures of the device now.

        Raises:
            EngineError: the device went away, or no answer came in time.
        """
        header, _ = self._receive(self._timeout_s, b'{"arrays": [], "ask": "conditions"}\n')
        return _conditions(header)

    def close(self) -> None:
        """End the runner, which removes its folder; then make sure of it."""
        process, self._process = self._process, None
        if process is not None:
            self._end(process)
        self._device.remove()
        self._errors.close()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        try:
            cast("IO[bytes]", process.stdin).close()
            process.wait(timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            stop_group(process)
            process.wait()
        cast("IO[bytes]", process.stdout).close()

    def _receive(self, timeout_s: float, payload: bytes = b"") -> tuple[Mapping[str, object], tuple[Array, ...]]:
        process = self._process
        if process is None:
            raise EngineError("the engine on the device is closed")
        late = threading.Event()

        def stop() -> None:
            late.set()
            stop_group(process)

        watch = threading.Timer(timeout_s, stop)
        watch.daemon = True
        watch.start()
        try:
            return _exchange(process, payload)
        except (OSError, EOFError, ValueError) as problem:
            raise EngineError(self._why(process, timeout_s if late.is_set() else None)) from problem
        finally:
            watch.cancel()

    def _why(self, process: subprocess.Popen[bytes], timeout_s: float | None) -> str:
        if timeout_s is not None:
            return f"the device gave no answer within {timeout_s:.0f} s"
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            stop_group(process)
            code = process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", errors="replace")
        return self._device.explain(said if said.strip() else f"the runner ended without a word (exit {code})")


def _exchange(process: subprocess.Popen[bytes], payload: bytes) -> tuple[Mapping[str, object], tuple[Array, ...]]:
    stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    if payload:
        stdin.write(payload)
        stdin.flush()
    line = stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError(last_line(line.decode("utf-8", errors="replace")))
    header = json.loads(line)
    if not isinstance(header, dict) or not isinstance(header.get("arrays"), list):
        raise ValueError("no header")  # noqa: TRY004 - a broken answer, not a wrong argument
    return header, tuple(_read_array(stdout, spec) for spec in header["arrays"])


def _read_array(stream: IO[bytes], spec: Mapping[str, object]) -> Array:
    dtype, shape = np.dtype(str(spec["dtype"])), tuple(cast("list[int]", spec["shape"]))
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = stream.read(wanted)
    if len(data) != wanted:
        raise EOFError(f"{len(data)} of {wanted} bytes")
    return np.frombuffer(data, dtype).reshape(shape)


def _hello(header: Mapping[str, object]) -> Hello:
    try:
        return Hello(
            load_ms=float(cast("float", header["load_ms"])),
            version=str(header["version"]),
            inputs=_borders(header["inputs"]),
            outputs=_borders(header["outputs"]),
            conditions=_conditions(header),
            before_rss_bytes=int(cast("int", header.get("before_rss_bytes", 0))),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise EngineError(f"the runner gave another answer than expected: {problem!r}") from problem


def _conditions(header: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    found = header.get("conditions")
    if not isinstance(found, dict):
        raise EngineError("the runner gave another answer than expected: no conditions")
    return tuple((str(key), str(value)) for key, value in found.items())


def _borders(found: object) -> tuple[Border, ...]:
    listed = cast("list[Mapping[str, object]]", found)
    return tuple(
        Border(
            dtype=str(one["dtype"]),
            scale=float(cast("float", one["scale"])),
            zero=int(cast("int", one["zero"])),
            name=str(one.get("name", "")),
        )
        for one in listed
    )


def _whole(header: Mapping[str, object], key: str) -> int:
    return int(cast("int", header[key]))
