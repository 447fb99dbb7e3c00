"""An open microcontroller engine: the real tflite-micro interpreter on this machine, row by row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qpipe_litert.layout import Layout, from_file, to_file
from qpipe_litert.session import checked_inputs, from_border, to_border

from qpipe.errors import EngineError
from qpipe.plugins.backend import Tensors
from qpipe.records.engine import Kind
from qpipe.records.tensors import Signature
from qpipe_mcu.micro import captured, open_micro, run_micro

Array = NDArray[np.generic]


class MicroSession:
    """Outputs of the kernels that run on the device, made on another machine: `emulated`."""

    kind: Kind = "emulated"

    def __init__(self, data: bytes, arena_bytes: int, layout: Layout, signature: Signature) -> None:
        self.signature = signature
        self._layout = layout
        try:
            self._interpreter, _ = captured(lambda: open_micro(data, arena_bytes))
        except RuntimeError as problem:
            raise EngineError(f"tflite-micro cannot load the engine in {arena_bytes} bytes: {problem}") from problem

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name for one batch.

        Raises:
            DataError: an input is missing, or has another dtype or shape than the model's.
        """
        arrays = checked_inputs(self.signature, inputs)
        free = any(spec.shape and not isinstance(spec.shape[0], int) for spec in self.signature.inputs)
        rows = len(next(iter(arrays.values()))) if free else 1
        parts = [self._run_row({k: a[i : i + 1] if free else a for k, a in arrays.items()}) for i in range(rows)]
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.signature.outputs}

    def close(self) -> None:
        """Drop the interpreter and its arena."""
        del self._interpreter

    def _run_row(self, row: dict[str, Array]) -> dict[str, Array]:
        ports = sorted(self._layout.inputs, key=lambda port: port.position)
        details = [self._interpreter.get_input_details(port.position) for port in ports]
        files = tuple(
            to_border(to_file(port, row[port.name]), detail["dtype"], border(detail))
            for port, detail in zip(ports, details, strict=True)
        )
        found = run_micro(self._interpreter, files, 1 + max(port.position for port in self._layout.outputs))
        dtypes = {spec.name: spec.dtype for spec in self.signature.outputs}
        made = {}
        for port in self._layout.outputs:
            plain = from_border(found[port.position], border(self._interpreter.get_output_details(port.position)))
            made[port.name] = from_file(port, plain).astype(dtypes[port.name], copy=False)
        return made


def border(detail: dict[str, dict[str, Array]]) -> tuple[float, int]:
    """Scale and zero point of one input or output; (0, 0) for float ones."""
    found = detail["quantization_parameters"]
    scales, zeros = found["scales"], found["zero_points"]
    return (float(scales[0]), int(zeros[0])) if len(scales) else (0.0, 0)
