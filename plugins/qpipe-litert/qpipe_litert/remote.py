"""A `.tflite` on the target's host: a phone, a board, or an emulated one."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from qpipe.errors import EngineError
from qpipe.hosts.agreement import Distant, EmulatedSession
from qpipe.hosts.device import Device, open_device
from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.known_answer import read_known_answer
from qpipe.hosts.known_answer import require_known_answer as require
from qpipe.hosts.remote import Hello, Job
from qpipe.plugins.backend import Tensors
from qpipe.records.engine import Engine, Kind
from qpipe.records.target import Target
from qpipe.records.tensors import Signature
from qpipe_litert.layout import Layout
from qpipe_litert.options import Options
from qpipe_litert.session import BorderSession, LocalEngine

RUNTIME = Path(__file__).parent / "device_runtime.py"


class DeviceSession(BorderSession):
    """A session whose times are the device's: what goes over the wire is not in them."""

    def __init__(self, engine: DeviceEngine, layout: Layout, signature: Signature, *, kind: Kind) -> None:
        super().__init__(engine, layout, signature, kind=kind)
        self._device = engine

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name; the device's clocks start at zero."""
        self._device.device_ns = (0, 0)
        return super().run(inputs)

    @property
    def device_ns(self) -> tuple[int, int]:
        """Wall and CPU nanoseconds of the last run on the device, summed over rows that ran one by one."""
        return self._device.device_ns

    @property
    def device_memory_bytes(self) -> tuple[int, int]:
        """Peak resident set of the runner: before the engine was loaded, and until now."""
        return self.hello.before_rss_bytes, self._device.peak_rss_bytes

    def device_conditions(self) -> tuple[tuple[str, str], ...]:
        """Machine, governor, clock and temperatures of the device now."""
        return (("runtime", self.hello.version), *self._device.conditions())

    @property
    def hello(self) -> Hello:
        """Load time, versions, clock and heat of the device."""
        return self._device.hello


def open_remote(engine: Engine, target: Target, layout: Layout, options: Options) -> Distant:
    """A session on the target's host. An emulator must first give the known answer.

    Raises:
        EngineError: the device is unreachable, lacks the runtime, or computes wrong results.
    """
    device = open_device(target.host, python=options.python)
    emulated = device.kind == "emulated"
    known = require_known_answer(open_device(target.host), timeout_s=target.limits.timeout_s) if emulated else ""
    job = Job(file=engine.main_file, runtime=RUNTIME, threads=target.threads, kernels=options.kernels)
    made = DeviceEngine(device, job, timeout_s=target.limits.timeout_s)
    try:
        made.require_machine(target.arch)
        there = DeviceSession(made, layout, engine.signature, kind=device.kind)
        if not emulated:
            return there
        local = LocalEngine(engine.main_file, threads=target.threads, kernels=options.kernels)
    except EngineError:
        made.close()
        raise
    here = BorderSession(local, layout, engine.signature, kind="measured")
    return EmulatedSession(there, here, known=known)


def require_known_answer(device: Device, *, timeout_s: float) -> str:
    """Run a small INT8 network whose outputs are known, unless this environment has; what was found, in words.

    Raises:
        EngineError: the answer is another one.
    """
    folder = files("qpipe_litert") / "known_answer"
    with as_file(folder / "model.tflite") as model, as_file(folder / "rows.npz") as rows:
        job = Job(file=Path(model), runtime=RUNTIME, kernels="xnnpack")
        return require(device, job, read_known_answer(Path(rows)), timeout_s=timeout_s)
