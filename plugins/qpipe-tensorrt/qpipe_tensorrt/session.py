"""An engine on the GPU: device buffers, one stream, CUDA graphs. Not run here: no NVIDIA driver."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from qpipe.errors import EngineError
from qpipe_tensorrt.border import Border, ShapeKey, choose_profile, read_border, take
from qpipe_tensorrt.buffers import Buffers
from qpipe_tensorrt.contexts import Contexts, Lane, Lanes
from qpipe_tensorrt.journal import Journal, attach
from qpipe_tensorrt.telemetry import Telemetry, conditions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qpipe.plugins.backend import Tensors
    from qpipe.records.engine import Kind
    from qpipe.records.tensors import Signature
    from qpipe_tensorrt.api import ICudaEngine, Vendor
    from qpipe_tensorrt.cuda import Cuda


class GpuSession:
    """Runs batches: upload, execute (a recorded graph from the second batch of a shape on), download.

    `jit`: the runtime compiles kernels on the GPU and records graphs by itself (TensorRT for RTX). `host_code`: engines
    for other versions bring their own runtime. `stream_weights`: let TensorRT choose how many weights stay on the host.
    """

    def __init__(
        self,
        vendor: Vendor,
        plan: bytes,
        signature: Signature,
        cuda: Cuda,
        *,
        jit: bool,
        use_graphs: bool = True,
        host_code: bool = False,
        stream_weights: bool = False,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._journal = Journal()
        self._logger = attach(vendor, self._journal)
        self._cuda = cuda
        self._signature = signature
        self._jit, self._use_graphs = jit, use_graphs
        self._telemetry = telemetry or Telemetry(cuda)
        self._runtime = vendor.Runtime(self._logger)
        self._runtime.engine_host_code_allowed = host_code
        self._engine = self._loaded(plan)
        self._border: Border = read_border(self._engine, signature)
        if stream_weights:  # before any context is made
            self._engine.weight_streaming_budget_v2 = self._engine.get_weight_streaming_automatic_budget()
        contexts = Contexts(vendor, self._engine, cuda, self._journal, jit=jit, use_graphs=use_graphs)
        self._lanes = Lanes(contexts, records=use_graphs and not jit)
        self._buffers = Buffers(cuda)
        self._seen: set[ShapeKey] = set()
        self._closed = False

    @property
    def kind(self) -> Kind:
        """Outputs come from the GPU."""
        return "measured"

    @property
    def signature(self) -> Signature:
        """Names, shapes and dtypes of the user's model."""
        return self._signature

    @property
    def device_ns(self) -> tuple[int, int]:
        """Of the last run: nanoseconds between two events around the inference, and CPU time of this thread.

        Transfers are in neither: they depend on the host, and are the same for the float engine.
        """
        return self._telemetry.device_ns

    @property
    def device_memory_bytes(self) -> tuple[int, int]:
        """Device memory before loading (counted as 0), and the most that engine, contexts and buffers took."""
        return 0, self._telemetry.memory_bytes

    def device_conditions(self) -> tuple[tuple[str, str], ...]:
        """Clocks, temperature and why the GPU was slowed, since the last time this was asked."""
        return (*conditions(self._telemetry.clocks()), ("cuda_graphs", self._graphs()))

    def _graphs(self) -> str:
        if not self._use_graphs:
            return "off"
        return "on" if self._jit or self._lanes.records else "off: the engine cannot be recorded"

    @property
    def remarks(self) -> tuple[str, ...]:
        """The first run beside the last one, and memory."""
        if self._telemetry.cold_ms is None:
            return ()
        warm_ms = self._telemetry.device_ns[0] / 1e6
        return (
            f"the first run took {self._telemetry.cold_ms:.1f} ms with transfers, the last one {warm_ms:.3f} ms on the "
            f"device; engine, contexts and buffers take {self._telemetry.memory_bytes / 2**20:.0f} MiB there",
        )

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name for one batch.

        Raises:
            EngineError: no profile serves these shapes, the device failed, or the session is closed.
        """
        if self._closed:
            raise EngineError("the session is closed")
        self._cuda.enter()
        self._telemetry.begin()
        arrays = take(self._border, inputs)
        shapes: ShapeKey = tuple((name, array.shape) for name, array in arrays.items())
        lane = self._lanes.serving(shapes)
        if lane.shapes != shapes:
            self._fit(lane, shapes)
        outputs = self._empty(lane)
        self._connect(lane, arrays | outputs)
        for name, array in arrays.items():
            self._cuda.upload(lane.addresses[name], array.ctypes.data, array.nbytes)
        self._execute(lane, shapes)
        for name, array in outputs.items():
            self._cuda.download(array.ctypes.data, lane.addresses[name], array.nbytes)
        self._cuda.wait()
        self._telemetry.finish()
        return outputs

    def close(self) -> None:
        """Free graphs, buffers, contexts, engine and stream, in that order; twice is fine."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as steps:  # the last one first; each is tried, also where a broken device refuses others
            steps.callback(self._cuda.close)
            steps.callback(self._forget)
            steps.callback(self._telemetry.close)
            steps.callback(self._buffers.close)
            steps.callback(self._lanes.close, self._cuda)
            self._cuda.enter()
            self._cuda.wait()

    def _forget(self) -> None:
        """Let the vendor's objects go, while their CUDA context is still there."""
        del self._lanes, self._engine, self._runtime

    def _loaded(self, plan: bytes) -> ICudaEngine:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"TensorRT cannot load the engine: {self._journal.reason()}", hint="build it again on this machine"
            )
        return engine

    def _fit(self, lane: Lane, shapes: ShapeKey) -> None:
        """Tell a context the shapes of its inputs; it then knows those of its outputs."""
        profile = choose_profile(self._border, shapes)
        lane.shapes = None
        if profile != lane.profile:  # which voids the shapes that it was told
            if not lane.context.set_optimization_profile_async(profile, self._cuda.stream):
                raise EngineError(f"optimization profile {profile} cannot be used: {self._journal.reason()}")
            self._cuda.wait()
            lane.profile, lane.addresses = profile, {}
        for name, shape in shapes:
            if not lane.context.set_input_shape(name, shape):
                raise EngineError(f"input `{name}`: the engine takes no {shape}: {self._journal.reason()}")
        lane.outputs = tuple(
            (wire.name, tuple(lane.context.get_tensor_shape(wire.name))) for wire in self._border.outputs
        )
        for name, shape in lane.outputs:
            if any(size < 0 for size in shape):
                raise EngineError(f"output `{name}` has a shape that depends on the data, which is not supported")
        lane.shapes = shapes

    def _empty(self, lane: Lane) -> dict[str, NDArray[np.generic]]:
        import numpy as np

        dtypes = {wire.name: wire.dtype for wire in self._border.outputs}
        return {name: np.empty(shape, dtypes[name]) for name, shape in lane.outputs}

    def _connect(self, lane: Lane, tensors: dict[str, NDArray[np.generic]]) -> None:
        """Give each tensor memory on the device. Where that moved, a recorded graph is void."""
        addresses = {name: self._buffers.address(name, array.nbytes) for name, array in tensors.items()}
        if addresses == lane.addresses:
            return
        if lane.graph is not None:
            self._cuda.drop_graph(lane.graph)
            lane.graph = None
        for name, address in addresses.items():
            if not lane.context.set_tensor_address(name, address):
                raise EngineError(f"tensor `{name}` cannot be placed: {self._journal.reason()}")
        lane.addresses = addresses

    def _execute(self, lane: Lane, shapes: ShapeKey) -> None:
        """Put one inference into the stream, as a recorded graph from the second one of these shapes on."""
        fresh = shapes not in self._seen or self._lanes.wants_graph(lane)
        if self._lanes.wants_graph(lane):
            self._record(lane)
        self._telemetry.start()
        if lane.graph is not None:
            self._cuda.launch(lane.graph)
        else:
            self._enqueue(lane)
        self._telemetry.stop()
        if fresh:
            self._seen.add(shapes)
            self._telemetry.look_at_memory()

    def _record(self, lane: Lane) -> None:
        """Record a graph; once an engine cannot be recorded (a loop, a condition), no more is tried."""
        self._enqueue(lane)  # a first run of these shapes outside the graph: the runtime sets itself up
        self._cuda.wait()
        lane.graph = self._cuda.capture(lambda: lane.context.execute_async_v3(self._cuda.stream))
        self._lanes.records = lane.graph is not None

    def _enqueue(self, lane: Lane) -> None:
        if not lane.context.execute_async_v3(self._cuda.stream):
            raise EngineError(f"the engine did not run: {self._journal.reason()}")
