"""LiteRT as the runtime of the runner. Runs on the device, beside `runner.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Header = dict[str, object]


class LiteRt:
    """A `.tflite`; arrays in the order of the file."""

    def __init__(self, path: str, threads: int, kernels: str) -> None:
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = OpResolverType.BUILTIN
        if kernels == "reference":
            resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.engine = Interpreter(path, num_threads=threads, experimental_op_resolver_type=resolver)
        self.engine.allocate_tensors()
        self.version = "ai-edge-litert " + version("ai-edge-litert")

    def borders(self) -> list[list[Header]]:
        """Types and quantization of inputs and outputs."""
        sides = self.engine.get_input_details(), self.engine.get_output_details()
        return [
            [
                {"dtype": d["dtype"].__name__, "scale": float(d["quantization"][0]), "zero": int(d["quantization"][1])}
                for d in s
            ]
            for s in sides
        ]

    def prepare(self, arrays: list[Array]) -> None:
        """Resize and set inputs, outside the timed part."""
        details = self.engine.get_input_details()
        if any(tuple(d["shape"]) != a.shape for d, a in zip(details, arrays, strict=True)):
            for detail, array in zip(details, arrays, strict=True):
                self.engine.resize_tensor_input(detail["index"], array.shape)
            self.engine.allocate_tensors()
        for detail, array in zip(details, arrays, strict=True):
            self.engine.set_tensor(detail["index"], array)
        self.engine.reset_all_variables()  # a recurrent operator would go on from the row before

    def invoke(self) -> None:
        """The timed part."""
        self.engine.invoke()

    def outputs(self) -> list[Array]:
        """Copies, in the order of the file."""
        return [self.engine.get_tensor(d["index"]) for d in self.engine.get_output_details()]


def open_engine(path: str, threads: int, kernels: str) -> LiteRt:
    """Load a `.tflite`."""
    return LiteRt(path, threads, kernels)
