"""A `.tflite` on the target's host: a phone, a board, or an emulated one."""

from __future__ import annotations

from pathlib import Path

from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.known_answer import KnownNetwork
from qpipe.hosts.remote import Job
from qpipe.hosts.session import DeviceSession, open_on_host
from qpipe.records.engine import Engine, Kind
from qpipe.records.target import Target
from qpipe_litert.layout import Layout
from qpipe_litert.options import Options
from qpipe_litert.session import BorderSession, LocalEngine

_FOLDER = Path(__file__).parent
RUNTIME = _FOLDER / "device_runtime.py"
KNOWN = KnownNetwork(
    job=Job(file=_FOLDER / "known_answer" / "model.tflite", runtime=RUNTIME, kernels="xnnpack"),
    rows=_FOLDER / "known_answer" / "rows.npz",
)


def open_remote(engine: Engine, target: Target, layout: Layout, options: Options) -> DeviceSession:
    """A session on the target's host. An emulator must first give the known answer.

    Raises:
        EngineError: the device is unreachable, lacks the runtime, or computes wrong results.
    """

    def dress(made: DeviceEngine, kind: Kind) -> BorderSession:
        return BorderSession(made, layout, engine.signature, kind=kind)

    def here() -> BorderSession:
        local = LocalEngine(engine.main_file, threads=target.threads, kernels=options.kernels)
        return BorderSession(local, layout, engine.signature, kind="measured")

    job = Job(file=engine.main_file, runtime=RUNTIME, threads=target.threads, kernels=options.kernels)
    return open_on_host(target, job, python=options.python, network=KNOWN, dress=dress, here=here)
