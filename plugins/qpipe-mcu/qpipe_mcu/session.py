"""An open microcontroller engine: the real tflite-micro interpreter on this machine, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qpipe_litert.layout import Layout
from qpipe_litert.session import BorderSession

from qpipe.errors import EngineError
from qpipe.hosts.remote import Border
from qpipe.records.tensors import Signature
from qpipe_mcu.micro import captured, open_micro, run_micro

Array = NDArray[np.generic]


class MicroEngine:
    """Outputs of the kernels that run on the device, made on another machine: `emulated`."""

    def __init__(self, data: bytes, arena_bytes: int, *, inputs: int, outputs: int) -> None:
        try:
            self._interpreter, _ = captured(lambda: open_micro(data, arena_bytes))
        except RuntimeError as problem:
            raise EngineError(f"tflite-micro cannot load the engine in {arena_bytes} bytes: {problem}") from problem
        self.inputs = tuple(_border(self._interpreter.get_input_details(at)) for at in range(inputs))
        self.outputs = tuple(_border(self._interpreter.get_output_details(at)) for at in range(outputs))

    def run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """One row."""
        try:
            return run_micro(self._interpreter, arrays, len(self.outputs))
        except (RuntimeError, ValueError) as problem:
            raise EngineError(f"tflite-micro cannot run the engine: {problem}") from problem

    def close(self) -> None:
        """Drop the interpreter and its arena."""
        del self._interpreter


def open_engine(data: bytes, arena_bytes: int, layout: Layout, signature: Signature) -> BorderSession:
    """A session on a `.tflite` that takes and gives the model's own names, shapes and dtypes."""
    micro = MicroEngine(data, arena_bytes, inputs=len(layout.inputs), outputs=len(layout.outputs))
    return BorderSession(micro, layout, signature, kind="emulated")


def _border(detail: Mapping[str, Any]) -> Border:
    found = detail["quantization_parameters"]
    scales, zeros = found["scales"], found["zero_points"]
    one = len(scales) > 0
    name = np.dtype(detail["dtype"]).name
    return Border(dtype=name, scale=float(scales[0]) if one else 0.0, zero=int(zeros[0]) if one else 0)
