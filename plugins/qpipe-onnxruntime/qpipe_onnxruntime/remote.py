"""An ONNX engine on the target's host: a board, a phone with Python, or an emulated arm64."""

from __future__ import annotations

from pathlib import Path

from qpipe.errors import EngineError
from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.known_answer import KnownNetwork
from qpipe.hosts.named import NamedSession
from qpipe.hosts.remote import ONNXRUNTIME, Job
from qpipe.hosts.session import DeviceSession, open_on_host
from qpipe.measure.ort import OrtSession
from qpipe.plugins.options import read_options
from qpipe.records.engine import Engine, Kind
from qpipe.records.target import Target
from qpipe_onnxruntime.options import Options
from qpipe_onnxruntime.session import open_engine

_KNOWN_ANSWER = Path(__file__).parent / "known_answer"
KNOWN = KnownNetwork(job=Job(file=_KNOWN_ANSWER / "model.onnx", runtime=ONNXRUNTIME), rows=_KNOWN_ANSWER / "rows.npz")


def open_remote(engine: Engine, target: Target) -> DeviceSession:
    """A session on the target's host. An emulator must first give the known answer.

    Raises:
        EngineError: the device is unreachable, lacks onnxruntime, or computes wrong results.
    """

    def dress(made: DeviceEngine, kind: Kind) -> NamedSession:
        return NamedSession(made, engine.signature, kind=kind)

    def here() -> OrtSession:
        return open_engine(engine, target)

    options = read_options(Options, target)
    job = _job(engine, target, options)
    return open_on_host(target, job, python=options.python, network=KNOWN, dress=dress, here=here)


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
