"""The engine inspector's account of a finished engine, one entry per layer with types, formats and tactics.

It needs a GPU, and a process of its own: an engine that the vendor's loader cannot take may crash it. Not run here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import EngineError
from qpipe_tensorrt.driver import find_gpus, serving
from qpipe_tensorrt.journal import Journal, attach
from qpipe_tensorrt.products import PRODUCTS
from qpipe_tensorrt.vendor import load_vendor, member

if TYPE_CHECKING:
    from qpipe_tensorrt.api import Vendor
    from qpipe_tensorrt.options import Options

LAYERS_FILE = "layers.json"


def can_inspect(options: Options) -> bool:
    """Whether a GPU of the target is here."""
    return serving(find_gpus(), options.capabilities) is not None


def main(engine: str, product: str, *capabilities: str) -> None:
    """Write the account of an engine file beside it."""
    from qpipe_tensorrt.cuda import Cuda

    gpu = serving(find_gpus(), capabilities)
    if gpu is None:
        raise EngineError(f"no GPU of compute capability {', '.join(capabilities)}")
    cuda = Cuda(gpu.index)
    text = layers_of(load_vendor(PRODUCTS[product].module, PRODUCTS[product].extra), Path(engine).read_bytes())
    Path(engine).with_name(LAYERS_FILE).write_text(text, encoding="utf-8")
    cuda.close()


def layers_of(vendor: Vendor, plan: bytes) -> str:
    """JSON of a serialized engine; a CUDA context must be current.

    Raises:
        EngineError: the vendor's loader does not take it.
    """
    journal = Journal()
    runtime = vendor.Runtime(attach(vendor, journal))
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"TensorRT cannot load the engine: {journal.reason()}")
    inspector = engine.create_engine_inspector()
    if inspector is None:
        raise EngineError(f"TensorRT gives no inspector: {journal.reason()}")
    return inspector.get_engine_information(member(vendor.LayerInformationFormat, "JSON"))
