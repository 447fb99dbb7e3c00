"""From an engine folder to a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import EngineError
from qpipe_tensorrt.build import GRAPH_FILE
from qpipe_tensorrt.driver import NoGpu, find_gpus
from qpipe_tensorrt.portability import admit
from qpipe_tensorrt.vendor import load_vendor

if TYPE_CHECKING:
    from qpipe.plugins.backend import Session
    from qpipe.records.engine import Engine
    from qpipe_tensorrt.options import Options
    from qpipe_tensorrt.session import GpuSession

_MAGIC = {"tensorrt-rtx": b"vtrt"}
"""First bytes of a serialized engine, where they were seen; `tensorrt` cannot be installed here."""


def open_engine(engine: Engine, options: Options) -> Session:
    """The GPU where there is one; the CPU only where the target says `simulate: true`.

    Raises:
        EngineError: not an engine, or not one of this machine; with what to do.
    """
    check_plan(engine, options.product)
    if options.simulate and isinstance(find_gpus(), NoGpu):
        return _simulated(engine)
    return open_on_gpu(engine, options)


def check_plan(engine: Engine, product: str) -> None:
    """Refuse a file that is no engine before the vendor's loader sees it: broken ones can crash it.

    Raises:
        EngineError: the file is no serialized engine.
    """
    try:
        with engine.main_file.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise EngineError(f"{engine.main_file} cannot be read: {error.strerror}", hint="build it again") from error
    if head != _MAGIC.get(product, head) or not head:
        raise EngineError(f"{engine.main_file.name} is not a TensorRT engine", hint="build it again")


def open_on_gpu(engine: Engine, options: Options) -> GpuSession:
    """A session on the GPU that the engine requires.

    Raises:
        EngineError: no such GPU, driver or version here.
    """
    gpu = admit(engine, options.vendor)
    from qpipe_tensorrt.cuda import Cuda
    from qpipe_tensorrt.session import GpuSession

    vendor = load_vendor(options.vendor.module, options.vendor.extra)
    return GpuSession(  # where this fails, its context stays: the vendor's objects live on in the traceback
        vendor,
        engine.main_file.read_bytes(),
        engine.signature,
        Cuda(gpu.index),
        jit=options.vendor.builds_without_gpu,
        use_graphs=options.cuda_graph,
        host_code=options.version_compatible,
        stream_weights=options.weight_streaming,
    )


def _simulated(engine: Engine) -> Session:
    from qpipe_tensorrt.simulated import SimulatedSession

    graph = engine.path / GRAPH_FILE
    if not graph.is_file():
        raise EngineError(
            "this engine keeps no graph to simulate", hint="build it with `simulate: true` in the target's options"
        )
    return SimulatedSession(graph, engine.signature)
