"""A `.tflite` on the target's host: a phone, a board, or an emulated one."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.hosts.device import Device, open_device
from qpipe.hosts.remote import Border, Hello, Job, RemoteEngine
from qpipe.plugins.backend import Tensors
from qpipe.records.engine import Engine, Kind
from qpipe.records.target import Target
from qpipe.records.tensors import Signature
from qpipe_litert.layout import Layout
from qpipe_litert.options import Options
from qpipe_litert.session import BorderSession

Array = NDArray[np.generic]
RUNTIME = Path(__file__).parent / "device_runtime.py"
KNOWN_STEPS = 1
"""Largest difference from the known answer in quantization steps."""


class DeviceEngine:
    """The runner on the device as an engine, with its clocks."""

    def __init__(self, device: Device, job: Job, *, timeout_s: float) -> None:
        self._remote = RemoteEngine(device, job, timeout_s=timeout_s)
        self.hello: Hello = self._remote.hello
        self.inputs: tuple[Border, ...] = self.hello.inputs
        self.outputs: tuple[Border, ...] = self.hello.outputs
        self.device_ns = (0, 0)
        self.peak_rss_bytes = 0

    def run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """One batch there; its times are added to `device_ns`."""
        answer = self._remote.run(arrays)
        wall_ns, cpu_ns = self.device_ns
        self.device_ns = (wall_ns + answer.wall_ns, cpu_ns + answer.cpu_ns)
        self.peak_rss_bytes = answer.peak_rss_bytes
        return answer.outputs

    def close(self) -> None:
        """End the runner; nothing stays on the device."""
        self._remote.close()


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
    def hello(self) -> Hello:
        """Load time, versions, clock and heat of the device."""
        return self._device.hello


def open_remote(engine: Engine, target: Target, layout: Layout, options: Options) -> DeviceSession:
    """A session on the target's host. An emulator must first give the known answer.

    Raises:
        EngineError: the device is unreachable, lacks the runtime, or computes wrong results.
    """
    device = open_device(target.host, python=options.python)
    if device.kind == "emulated":
        require_known_answer(open_device(target.host), timeout_s=target.limits.timeout_s)
    job = Job(file=engine.main_file, runtime=RUNTIME, threads=target.threads, kernels=options.kernels)
    made = DeviceEngine(device, job, timeout_s=target.limits.timeout_s)
    return DeviceSession(made, layout, engine.signature, kind=device.kind)


def require_known_answer(device: Device, *, timeout_s: float) -> None:
    """Run a small INT8 network whose outputs are known: some emulated CPUs compute wrong ones without an error.

    Raises:
        EngineError: the answer is another one.
    """
    folder = files("qpipe_litert") / "known_answer"
    with as_file(folder / "model.tflite") as model, as_file(folder / "rows.npz") as rows:
        known = np.load(Path(rows))
        engine = DeviceEngine(device, Job(file=Path(model), runtime=RUNTIME), timeout_s=timeout_s)
        try:
            found = engine.run((known["inputs"],))[0]
        finally:
            engine.close()
    worst = int(np.abs(found.astype(np.int32) - known["outputs"].astype(np.int32)).max())
    if worst > KNOWN_STEPS:
        raise EngineError(
            f"the known-answer test failed: {device.fingerprint()} is off by {worst} steps",
            hint="its INT8 kernels cannot be trusted; choose another emulated CPU",
        )
