"""onnxruntime as the runtime of the runner. Runs on the device, beside `runner.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Header = dict[str, object]


class Onnx:
    """An ONNX graph; arrays in the order of the graph."""

    def __init__(self, path: str, threads: int, kernels: str) -> None:
        import onnxruntime

        level, _, arena = (kernels or "all:arena").partition(":")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
        options.enable_cpu_mem_arena = arena == "arena"
        self.engine = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.engine.get_inputs()]
        self.version = "onnxruntime " + onnxruntime.__version__
        self.feed: dict[str, Array] = {}
        self.found: list[Array] = []

    def borders(self) -> list[list[Header]]:
        """Names and types of inputs and outputs; nothing is quantized at the border of an ONNX graph."""
        sides = self.engine.get_inputs(), self.engine.get_outputs()
        return [[{"dtype": _dtype(v.type), "scale": 0.0, "zero": 0, "name": v.name} for v in side] for side in sides]

    def prepare(self, arrays: list[Array]) -> None:
        """Keep the inputs."""
        self.feed = dict(zip(self.names, arrays, strict=True))

    def invoke(self) -> None:
        """The timed part."""
        self.found = self.engine.run(None, self.feed)

    def outputs(self) -> list[Array]:
        """As onnxruntime gave them."""
        return self.found


def _dtype(kind: str) -> str:
    """`float32` for onnxruntime's `tensor(float)`."""
    inner = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(inner, inner)


def open_engine(path: str, threads: int, kernels: str) -> Onnx:
    """Load an ONNX graph; `kernels` is the optimization level, and `:arena` where freed memory is kept."""
    return Onnx(path, threads, kernels)
