"""An ONNX engine on the target's host: a board, a phone with Python, or an emulated arm64."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.hosts.agreement import Distant, EmulatedSession
from qpipe.hosts.device import Device, open_device
from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.known_answer import read_known_answer
from qpipe.hosts.known_answer import require_known_answer as require
from qpipe.hosts.remote import ONNXRUNTIME, Border, Job
from qpipe.records.engine import Engine, Kind
from qpipe.records.target import Target
from qpipe.records.tensors import Signature, TensorSpec
from qpipe_onnxruntime.options import Options, read_options
from qpipe_onnxruntime.session import open_engine

if TYPE_CHECKING:
    from qpipe.plugins.backend import Tensors

Array = NDArray[np.generic]


class RemoteSession:
    """Takes and gives the model's names and dtypes; times, memory and conditions are the device's."""

    def __init__(self, engine: DeviceEngine, signature: Signature, *, kind: Kind) -> None:
        self.kind: Kind = kind
        self.signature = signature
        self._engine = engine
        self._inputs = _in_order(engine.inputs, signature.inputs)
        self._outputs = _in_order(engine.outputs, signature.outputs)

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name, for one batch of inputs by name.

        Raises:
            EngineError: an input is missing, the device went away, or onnxruntime refused the batch.
        """
        if missing := [border.name for border, _ in self._inputs if border.name not in inputs]:
            raise EngineError(f"input {missing[0]} is missing")
        arrays = tuple(np.asarray(inputs[border.name]).astype(border.dtype, copy=False) for border, _ in self._inputs)
        self._engine.device_ns = (0, 0)
        found = dict(zip((border.name for border, _ in self._outputs), self._engine.run(arrays), strict=True))
        dtypes = {border.name: spec.dtype for border, spec in self._outputs}
        return {spec.name: found[spec.name].astype(dtypes[spec.name], copy=False) for spec in self.signature.outputs}

    def close(self) -> None:
        """End the runner; nothing stays on the device."""
        self._engine.close()

    @property
    def device_ns(self) -> tuple[int, int]:
        """Wall and CPU nanoseconds of the last run on the device."""
        return self._engine.device_ns

    @property
    def device_memory_bytes(self) -> tuple[int, int]:
        """Peak resident set of the runner: before the engine was loaded, and until now."""
        return self._engine.hello.before_rss_bytes, self._engine.peak_rss_bytes

    def device_conditions(self) -> tuple[tuple[str, str], ...]:
        """Version of onnxruntime there, machine, governor, clock and temperatures now."""
        return (("runtime", self._engine.hello.version), *self._engine.conditions())


def open_remote(engine: Engine, target: Target) -> Distant:
    """A session on the target's host. An emulator must first give the known answer.

    Raises:
        EngineError: the device is unreachable, lacks onnxruntime, or computes wrong results.
    """
    options = read_options(target)
    device = open_device(target.host, python=options.python)
    emulated = device.kind == "emulated"
    known = require_known_answer(open_device(target.host), timeout_s=target.limits.timeout_s) if emulated else ""
    made = DeviceEngine(device, _job(engine, target, options), timeout_s=target.limits.timeout_s)
    try:
        made.require_machine(target.arch)
        there = RemoteSession(made, engine.signature, kind=device.kind)
        return EmulatedSession(there, open_engine(engine, target), known=known) if emulated else there
    except EngineError:
        made.close()
        raise


def require_known_answer(device: Device, *, timeout_s: float) -> str:
    """Run a small INT8 network whose outputs are known, unless this environment has; what was found, in words.

    Raises:
        EngineError: the answer is another one.
    """
    folder = files("qpipe_onnxruntime") / "known_answer"
    with as_file(folder / "model.onnx") as model, as_file(folder / "rows.npz") as rows:
        job = Job(file=Path(model), runtime=ONNXRUNTIME)
        return require(device, job, read_known_answer(Path(rows)), timeout_s=timeout_s)


def _job(engine: Engine, target: Target, options: Options) -> Job:
    beside = [file.name for file in engine.files[1:] if not file.artifact]
    if nested := [name for name in beside if "/" in name]:
        raise EngineError(
            f"{nested[0]} lies in a folder of its own: only flat engines go to other machines",
            hint="save the model with its external data beside it",
        )
    arena = "arena" if options.memory_arena else "no-arena"
    return Job(
        file=engine.main_file,
        runtime=ONNXRUNTIME,
        threads=target.threads,
        kernels=f"{options.graph_optimization}:{arena}",
        beside=tuple(engine.path / name for name in beside),
    )


def _in_order(borders: tuple[Border, ...], specs: tuple[TensorSpec, ...]) -> tuple[tuple[Border, TensorSpec], ...]:
    """Each tensor of the file with the model's: float types may differ, nothing else."""
    by_name = {spec.name: spec for spec in specs}
    if {border.name for border in borders} != set(by_name):
        there, ours = (", ".join(sorted(names)) for names in ({border.name for border in borders}, by_name))
        raise EngineError(f"the file has {there} where the model has {ours}")
    pairs = tuple((border, by_name[border.name]) for border in borders)
    for border, spec in pairs:
        if border.dtype != spec.dtype and not (border.dtype.startswith("float") and spec.dtype.startswith("float")):
            raise EngineError(f"'{spec.name}' is {border.dtype} in the file and {spec.dtype} in the model")
    return pairs
