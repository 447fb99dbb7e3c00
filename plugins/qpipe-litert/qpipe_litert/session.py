"""An open `.tflite` engine that takes and gives the model's own names, shapes and dtypes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import DataError, EngineError
from qpipe.plugins.backend import Tensors
from qpipe.records.codec import decode
from qpipe.records.engine import Kind
from qpipe.records.tensors import Signature
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.layout import Layout, from_file, to_file
from qpipe_litert.options import Kernels

Array = NDArray[np.generic]
LAYOUT = "layout.json"


class LiteRtSession:
    """One interpreter with a fixed number of threads."""

    def __init__(
        self, path: Path, layout: Layout, signature: Signature, *, threads: int, kernels: Kernels, kind: Kind
    ) -> None:
        self.kind: Kind = kind
        self.signature = signature
        self._layout = layout
        try:
            self._interpreter = open_interpreter(path, threads=threads, kernels=kernels)
        except (RuntimeError, ValueError) as problem:
            raise EngineError(f"LiteRT cannot load {path.name}: {' '.join(str(problem).split())[:300]}") from problem

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name for one batch, whatever the file's batch, layout and types are.

        Raises:
            DataError: an input is missing, or has another dtype or shape than the model's.
        """
        arrays = checked_inputs(self.signature, inputs)
        rows = len(next(iter(arrays.values()))) if arrays else 0
        if self._layout.any_batch or rows == 1 or not self._batched():
            return self._run_batch(arrays)
        parts = [self._run_batch({name: array[i : i + 1] for name, array in arrays.items()}) for i in range(rows)]
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.signature.outputs}

    def close(self) -> None:
        """Drop the interpreter."""
        del self._interpreter

    def _batched(self) -> bool:
        return any(spec.shape and not isinstance(spec.shape[0], int) for spec in self.signature.inputs)

    def _run_batch(self, arrays: dict[str, Array]) -> dict[str, Array]:
        details = self._interpreter.get_input_details()
        ports = sorted(self._layout.inputs, key=lambda port: port.position)
        files = tuple(
            to_border(to_file(port, arrays[port.name]), detail["dtype"], detail["quantization"])
            for port, detail in zip(ports, details, strict=True)
        )
        try:
            found = invoke(self._interpreter, files)
        except (RuntimeError, ValueError) as problem:
            raise EngineError(f"LiteRT cannot run the engine: {' '.join(str(problem).split())[:300]}") from problem
        outputs = self._interpreter.get_output_details()
        specs = {spec.name: spec for spec in self.signature.outputs}
        made: dict[str, Array] = {}
        for port in self._layout.outputs:
            plain = from_border(found[port.position], outputs[port.position]["quantization"])
            made[port.name] = from_file(port, plain).astype(specs[port.name].dtype, copy=False)
        return made


def checked_inputs(signature: Signature, inputs: Tensors) -> dict[str, Array]:
    """The model's inputs by name, in order.

    Raises:
        DataError: one is missing, or has another dtype or shape than the model's.
    """
    arrays: dict[str, Array] = {}
    for spec in signature.inputs:
        if spec.name not in inputs:
            raise DataError(f"input {spec.name} is missing", hint=f"the model takes {spec}")
        array = np.asarray(inputs[spec.name])
        same = len(array.shape) == len(spec.shape) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(spec.shape, array.shape, strict=True)
        )
        if array.dtype.name != spec.dtype or not same:
            raise DataError(f"input {spec.name} is {array.dtype}{list(array.shape)}", hint=f"the model takes {spec}")
        arrays[spec.name] = array
    return arrays


def to_border(array: Array, dtype: type[np.generic], quantization: tuple[float, int]) -> Array:
    """A real array in the file's type: q = clip(round(x / scale) + zero point) to the dtype's own range."""
    scale, zero = quantization
    if not np.issubdtype(dtype, np.integer) or scale == 0:
        return array.astype(dtype, copy=False)
    ends = np.iinfo(np.dtype(dtype).name)
    steps = np.round(array.astype(np.float32) / np.float32(scale)) + np.float32(zero)
    return np.clip(steps, ends.min, ends.max).astype(dtype)


def from_border(array: Array, quantization: tuple[float, int]) -> Array:
    """An array in the file's type as real numbers: (q − zero point) · scale."""
    scale, zero = quantization
    if not np.issubdtype(array.dtype, np.integer) or scale == 0:
        return array
    return (array.astype(np.int32) - zero).astype(np.float32) * np.float32(scale)


def read_layout(folder: Path) -> Layout:
    """The layout stored beside the `.tflite`.

    Raises:
        EngineError: it is missing or not one.
    """
    try:
        return decode(Layout, (folder / LAYOUT).read_text("utf-8"))
    except (OSError, ValueError) as problem:
        raise EngineError(
            f"the engine's {LAYOUT} cannot be read: {problem}", hint="build the engine again"
        ) from problem
