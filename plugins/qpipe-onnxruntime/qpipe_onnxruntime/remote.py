"""An ONNX engine on the target's host: a board, a phone with Python, or an emulated arm64."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.known_answer import KnownNetwork
from qpipe.hosts.remote import ONNXRUNTIME, Border, Job
from qpipe.hosts.session import DeviceSession, open_on_host
from qpipe.measure.ort import OrtSession
from qpipe.plugins.inputs import checked_inputs
from qpipe.plugins.options import read_options
from qpipe.records.engine import Engine, Kind
from qpipe.records.target import Target
from qpipe.records.tensors import Signature, TensorSpec
from qpipe_onnxruntime.options import Options
from qpipe_onnxruntime.session import open_engine

if TYPE_CHECKING:
    from qpipe.plugins.backend import Tensors

Array = NDArray[np.generic]
_KNOWN_ANSWER = Path(__file__).parent / "known_answer"
KNOWN = KnownNetwork(job=Job(file=_KNOWN_ANSWER / "model.onnx", runtime=ONNXRUNTIME), rows=_KNOWN_ANSWER / "rows.npz")


class GraphSession:
    """Takes and gives the model's names and dtypes, whatever float types the graph has at its borders."""

    def __init__(self, engine: DeviceEngine, signature: Signature, *, kind: Kind) -> None:
        self.kind: Kind = kind
        self.signature = signature
        self._engine = engine
        self._inputs = _in_order(engine.inputs, signature.inputs)
        self._outputs = _in_order(engine.outputs, signature.outputs)

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name, for one batch of inputs by name.

        Raises:
            EngineError: the inputs are not the model's, the device went away, or onnxruntime refused the batch.
        """
        given = checked_inputs(self.signature, inputs)
        arrays = tuple(given[border.name].astype(border.dtype, copy=False) for border, _ in self._inputs)
        found = dict(zip((border.name for border, _ in self._outputs), self._engine.run(arrays), strict=True))
        dtypes = {border.name: spec.dtype for border, spec in self._outputs}
        return {spec.name: found[spec.name].astype(dtypes[spec.name], copy=False) for spec in self.signature.outputs}

    def close(self) -> None:
        """End the runner."""
        self._engine.close()


def open_remote(engine: Engine, target: Target) -> DeviceSession:
    """A session on the target's host. An emulator must first give the known answer.

    Raises:
        EngineError: the device is unreachable, lacks onnxruntime, or computes wrong results.
    """

    def dress(made: DeviceEngine, kind: Kind) -> GraphSession:
        return GraphSession(made, engine.signature, kind=kind)

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
