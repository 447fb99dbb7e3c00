"""Execution contexts of one engine, as each product wants them. Not run here: no NVIDIA driver.

TensorRT for RTX compiles kernels on the GPU. Left to itself it begins with general ones and exchanges them at some
later run, so that times and outputs would change in the middle of a measurement: here it compiles for each shape at
once (`EAGER`), and records and replays CUDA graphs by itself. Source: NVIDIA TensorRT for RTX, "Working with Dynamic
Shapes" and "Working with RTX CUDA Graphs".

For `tensorrt` graphs are recorded here, each from a context of its own, since a context that changed afterwards would
void its graph; all contexts share one block of memory, as none runs beside another. Source: NVIDIA TensorRT 11
developer guide, "CUDA Graphs".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qpipe.errors import EngineError
from qpipe_tensorrt.vendor import member

if TYPE_CHECKING:
    from qpipe_tensorrt.api import ICudaEngine, IExecutionContext, Vendor
    from qpipe_tensorrt.border import Shape, ShapeKey
    from qpipe_tensorrt.cuda import Cuda
    from qpipe_tensorrt.journal import Journal

MOST_GRAPHS = 16
"""Shapes that get a graph; rows of many lengths would fill the GPU with contexts."""


@dataclass(slots=True)
class Lane:
    """A context, what it was told last, and the graph that was recorded from it."""

    context: IExecutionContext
    profile: int | None = None
    shapes: ShapeKey | None = None
    outputs: tuple[tuple[str, Shape], ...] = ()
    addresses: dict[str, int] = field(default_factory=dict)
    graph: int | None = None


class Contexts:
    """Makes them; frees what they share."""

    def __init__(
        self, vendor: Vendor, engine: ICudaEngine, cuda: Cuda, journal: Journal, *, jit: bool, use_graphs: bool
    ) -> None:
        self._vendor, self._engine, self._cuda, self._journal = vendor, engine, cuda, journal
        self._how = self._runtime_config(use_graphs=use_graphs) if jit else None
        self._shares = use_graphs and not jit
        self._block: int | None = None

    def make(self) -> Lane:
        """A new context.

        Raises:
            EngineError: the GPU has no memory for it.
        """
        if self._shares:
            managed = member(self._vendor.ExecutionContextAllocationStrategy, "USER_MANAGED")
            context = self._engine.create_execution_context(managed)
        else:
            context = self._engine.create_execution_context(*(() if self._how is None else (self._how,)))
        if context is None:
            raise EngineError(f"no execution context: {self._journal.reason()}", hint="free memory on the GPU")
        if self._shares:
            size_bytes = self._engine.device_memory_size_v2
            if self._block is None:
                self._block = self._cuda.allocate(size_bytes)
            context.set_device_memory(self._block, size_bytes)
        return Lane(context=context)

    def close(self) -> None:
        """Free the shared block, after all contexts."""
        if self._block is not None:
            self._cuda.free(self._block)
            self._block = None

    def _runtime_config(self, *, use_graphs: bool) -> object:
        config = self._engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = member(
            self._vendor.DynamicShapesKernelSpecializationStrategy, "EAGER"
        )
        graphs = "WHOLE_GRAPH_CAPTURE" if use_graphs else "DISABLED"
        config.cuda_graph_strategy = member(self._vendor.CudaGraphStrategy, graphs)
        return config


class Lanes:
    """Which context serves which shapes: a general one, and from the second run of its shapes on one of their own."""

    def __init__(self, contexts: Contexts, *, records: bool) -> None:
        self.records = records
        self._contexts = contexts
        self._general = contexts.make()
        self._own: dict[ShapeKey, Lane] = {}
        self._seen: set[ShapeKey] = set()

    def serving(self, shapes: ShapeKey) -> Lane:
        """The context for these shapes."""
        if not self.records:
            return self._general
        if shapes in self._seen and shapes not in self._own and len(self._own) < MOST_GRAPHS:
            self._own[shapes] = self._contexts.make()
        if len(self._seen) < MOST_GRAPHS:
            self._seen.add(shapes)
        return self._own.get(shapes, self._general)

    def wants_graph(self, lane: Lane) -> bool:
        """Whether a graph is to be recorded from it now."""
        return self.records and lane is not self._general and lane.graph is None

    def close(self, cuda: Cuda) -> None:
        """Free graphs, contexts and what they share, in that order."""
        for lane in self._own.values():
            if lane.graph is not None:
                cuda.drop_graph(lane.graph)
        self._own.clear()
        del self._general
        self._contexts.close()
