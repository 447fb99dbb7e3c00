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

    def __init__(self, path: str, threads: int, kernels: str) -> None:  # noqa: ARG002 - runtimes are made alike
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.engine = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.engine.get_inputs()]
        self.version = "onnxruntime " + onnxruntime.__version__
        self.feed: dict[str, Array] = {}
        self.found: list[Array] = []

    def borders(self) -> list[list[Header]]:
        """Nothing is quantized at the border of an ONNX graph."""
        return [[], []]

    def prepare(self, arrays: list[Array]) -> None:
        """Keep the inputs."""
        self.feed = dict(zip(self.names, arrays, strict=True))

    def invoke(self) -> None:
        """The timed part."""
        self.found = self.engine.run(None, self.feed)

    def outputs(self) -> list[Array]:
        """As onnxruntime gave them."""
        return self.found


def open_engine(path: str, threads: int, kernels: str) -> Onnx:
    """Load an ONNX graph."""
    return Onnx(path, threads, kernels)
