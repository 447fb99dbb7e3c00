"""An engine on the GPU: device buffers, one stream, CUDA graphs. Not run here: no NVIDIA driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import EngineError
from qpipe_tensorrt.buffers import Buffers
from qpipe_tensorrt.journal import Journal, attach
from qpipe_tensorrt.telemetry import Telemetry, conditions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qpipe.plugins.backend import Tensors
    from qpipe.records.engine import Kind
    from qpipe.records.tensors import Signature
    from qpipe_tensorrt.api import ICudaEngine, IExecutionContext, Vendor
    from qpipe_tensorrt.cuda import Cuda

_NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
ShapeKey = tuple[tuple[str, tuple[int, ...]], ...]


class GpuSession:
    """Runs batches: upload, execute (a recorded graph from the second batch of a shape on), download."""

    def __init__(
        self,
        vendor: Vendor,
        plan: bytes,
        signature: Signature,
        cuda: Cuda,
        *,
        use_graphs: bool,
        host_code: bool,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._journal = Journal()
        self._logger = attach(vendor, self._journal)
        self._cuda = cuda
        self._signature = signature
        self._use_graphs = use_graphs
        self._telemetry = telemetry or Telemetry(cuda)
        self._runtime = vendor.Runtime(self._logger)
        self._runtime.engine_host_code_allowed = host_code  # engines for other versions bring their own runtime
        self._engine = self._loaded(plan)
        self._context = self._made_context()
        self._buffers = Buffers(cuda)
        self._profile = 0
        self._graphs: dict[tuple[ShapeKey, int], int] = {}
        self._seen: set[tuple[ShapeKey, int]] = set()
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
        """Device memory before loading (counted as 0), and the most that engine, context and buffers took."""
        return 0, self._telemetry.memory_bytes

    def device_conditions(self) -> tuple[tuple[str, str], ...]:
        """Clocks, temperature and why the GPU was slowed, now."""
        return (*conditions(self._telemetry.clocks()), ("cuda_graphs", "on" if self._use_graphs else "off"))

    @property
    def remarks(self) -> tuple[str, ...]:
        """The first run beside the last one, and memory."""
        if self._telemetry.cold_ms is None:
            return ()
        warm_ms = self._telemetry.device_ns[0] / 1e6
        return (
            f"the first run took {self._telemetry.cold_ms:.1f} ms with transfers, the last one {warm_ms:.3f} ms on the "
            f"device; engine, context and buffers take {self._telemetry.memory_bytes / 2**20:.0f} MiB there",
        )

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name for one batch.

        Raises:
            EngineError: no profile serves these shapes, the device failed, or the session is closed.
        """
        if self._closed:
            raise EngineError("the session is closed")
        self._telemetry.begin()
        arrays = self._upload(inputs)
        key = tuple((name, array.shape) for name, array in arrays.items())
        outputs = self._outputs()
        self._execute(key)
        for name, array in outputs.items():
            self._cuda.download(array.ctypes.data, self._buffers.address(name, array.nbytes), array.nbytes)
        self._cuda.wait()
        self._telemetry.finish()
        return outputs

    def _upload(self, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
        """Put a batch on the device and bind it; gives back what the stream still reads from."""
        import numpy as np

        arrays = {
            spec.name: np.ascontiguousarray(inputs[spec.name], dtype=self._dtype(spec.name))
            for spec in self._signature.inputs
        }
        self._choose_profile({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            if not self._context.set_input_shape(name, array.shape):
                raise EngineError(f"input `{name}`: the engine takes no {array.shape}: {self._journal.reason()}")
            address = self._buffers.address(name, array.nbytes)
            self._context.set_tensor_address(name, address)
            self._cuda.upload(address, array.ctypes.data, array.nbytes)
        return arrays

    def _execute(self, key: ShapeKey) -> None:
        """Put one inference into the stream, as a recorded graph from the second one of these shapes on."""
        mark = (key, self._buffers.epoch)
        fresh = mark not in self._seen
        if self._use_graphs and not fresh and mark not in self._graphs:
            with self._cuda.capture() as handles:
                self._enqueue()
            self._graphs[mark], fresh = handles[0], True
        self._telemetry.start()
        if mark in self._graphs:
            self._cuda.launch(self._graphs[mark])
        else:
            self._enqueue()
        self._telemetry.stop()
        if fresh:
            self._seen.add(mark)
            self._telemetry.look_at_memory()

    def close(self) -> None:
        """Free graphs, buffers, context, engine and stream, in that order; twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._cuda.wait()
        for graph in self._graphs.values():
            self._cuda.drop_graph(graph)
        self._graphs.clear()
        self._buffers.close()
        self._telemetry.close()
        del self._context, self._engine, self._runtime
        self._cuda.close()

    def _loaded(self, plan: bytes) -> ICudaEngine:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"TensorRT cannot load the engine: {self._journal.reason()}", hint="build it again on this machine"
            )
        return engine

    def _made_context(self) -> IExecutionContext:
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f"no execution context: {self._journal.reason()}", hint="free memory on the GPU")
        return context

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            raise EngineError(f"the engine did not run: {self._journal.reason()}")

    def _outputs(self) -> dict[str, NDArray[np.generic]]:
        import numpy as np

        outputs: dict[str, NDArray[np.generic]] = {}
        for spec in self._signature.outputs:
            shape = tuple(self._context.get_tensor_shape(spec.name))
            if any(size < 0 for size in shape):
                raise EngineError(f"output `{spec.name}` has a shape that depends on the data, which is not supported")
            outputs[spec.name] = np.empty(shape, self._dtype(spec.name))
            address = self._buffers.address(spec.name, outputs[spec.name].nbytes)
            self._context.set_tensor_address(spec.name, address)
        return outputs

    def _dtype(self, name: str) -> str:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _NUMPY:
            raise EngineError(
                f"tensor `{name}` is {kind}: inputs and outputs of an engine are float32, float16 or integer"
            )
        return _NUMPY[kind]

    def _choose_profile(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """The tightest profile that serves these shapes: later ones are narrower than the first."""
        fitting = [index for index in range(self._engine.num_optimization_profiles) if self._fits(index, shapes)]
        if not fitting:
            told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise EngineError(f"no optimization profile serves {told}", hint="widen the shapes or the batch sizes")
        if fitting[-1] != self._profile:
            self._context.set_optimization_profile_async(fitting[-1], self._cuda.stream)
            self._cuda.wait()
            self._profile = fitting[-1]

    def _fits(self, index: int, shapes: dict[str, tuple[int, ...]]) -> bool:
        for name, shape in shapes.items():
            low, _, high = self._engine.get_tensor_profile_shape(name, index)
            if len(low) != len(shape) or not all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
                return False
        return True
