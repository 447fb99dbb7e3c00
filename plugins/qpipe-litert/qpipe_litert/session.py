"""An open `.tflite` engine that takes and gives the model's own names, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.hosts.remote import Border
from qpipe.plugins.backend import Tensors
from qpipe.plugins.inputs import checked_inputs
from qpipe.records.codec import decode
from qpipe.records.engine import Kind
from qpipe.records.tensors import Signature
from qpipe_litert.interpreter import open_interpreter, run_afresh
from qpipe_litert.layout import Layout, from_file, to_file
from qpipe_litert.options import Kernels

Array = NDArray[np.generic]
LAYOUT = "layout.json"


class FileEngine(Protocol):
    """Something that runs the file, here or elsewhere, in the file's own order, layout and types."""

    @property
    def inputs(self) -> tuple[Border, ...]:
        """Types and quantization of the inputs."""
        ...

    @property
    def outputs(self) -> tuple[Border, ...]:
        """Types and quantization of the outputs."""
        ...

    def run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """One batch.

        Raises:
            EngineError: the runtime refused.
        """
        ...

    def close(self) -> None:
        """Free it."""
        ...


class LocalEngine:
    """The interpreter in this process, with a fixed number of threads."""

    def __init__(self, path: Path, *, threads: int, kernels: Kernels) -> None:
        try:
            self._interpreter = open_interpreter(path, threads=threads, kernels=kernels)
        except (RuntimeError, ValueError) as problem:
            raise EngineError(f"LiteRT cannot load {path.name}: {' '.join(str(problem).split())[:300]}") from problem
        taken, given = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs = tuple(_border(detail) for detail in taken)
        self.outputs = tuple(_border(detail) for detail in given)
        # Details are slow to ask for (longer than a small network runs), so indices and shapes are kept.
        self._taken = tuple(int(detail["index"]) for detail in taken)
        self._given = tuple(int(detail["index"]) for detail in given)
        self._shapes: tuple[tuple[int, ...], ...] = tuple(tuple(int(n) for n in detail["shape"]) for detail in taken)

    def run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """One batch; inputs are resized to what they are given."""
        try:
            self._resize(tuple(array.shape for array in arrays))
            for index, array in zip(self._taken, arrays, strict=True):
                self._interpreter.set_tensor(index, array)
            run_afresh(self._interpreter)
            return tuple(self._interpreter.get_tensor(index) for index in self._given)
        except (RuntimeError, ValueError) as problem:
            raise EngineError(f"LiteRT cannot run the engine: {' '.join(str(problem).split())[:300]}") from problem

    def close(self) -> None:
        """Drop the interpreter."""
        del self._interpreter

    def _resize(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        if shapes == self._shapes:
            return
        self._shapes = ()  # unknown until the allocation has succeeded
        for index, shape in zip(self._taken, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


class BorderSession:
    """Takes and gives the model's own names, shapes and dtypes, whatever the file's batch, layout and types are."""

    def __init__(self, engine: FileEngine, layout: Layout, signature: Signature, *, kind: Kind) -> None:
        self.kind: Kind = kind
        self.signature = signature
        self._engine: FileEngine | None = engine
        self._layout = layout
        self._ports = sorted(layout.inputs, key=lambda port: port.position)
        self._dtypes = {spec.name: spec.dtype for spec in signature.outputs}
        self._free = any(spec.shape and not isinstance(spec.shape[0], int) for spec in signature.inputs)

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name for one batch.

        Raises:
            EngineError: the session is closed, the inputs are not the model's, or the runtime refused.
        """
        if (engine := self._engine) is None:
            raise EngineError("the session is closed")
        arrays = checked_inputs(self.signature, inputs)
        rows = len(next(iter(arrays.values()))) if arrays else 0
        if self._layout.any_batch or rows == 1 or not self._free:
            return self._run_batch(engine, arrays)
        single = ({name: array[row : row + 1] for name, array in arrays.items()} for row in range(rows))
        parts = [self._run_batch(engine, one) for one in single]
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.signature.outputs}

    def close(self) -> None:
        """Free the engine; once."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _run_batch(self, engine: FileEngine, arrays: dict[str, Array]) -> dict[str, Array]:
        files = tuple(
            to_border(to_file(port, arrays[port.name]), border)
            for port, border in zip(self._ports, engine.inputs, strict=True)
        )
        found = engine.run(files)
        made: dict[str, Array] = {}
        for port in self._layout.outputs:
            plain = from_border(found[port.position], engine.outputs[port.position])
            made[port.name] = from_file(port, plain).astype(self._dtypes[port.name], copy=False)
        return made


def _border(detail: Mapping[str, Any]) -> Border:
    scale, zero = detail["quantization"]
    return Border(dtype=np.dtype(detail["dtype"]).name, scale=float(scale), zero=int(zero))


def to_border(array: Array, border: Border) -> Array:
    """A real array in the file's type: q = clip(round(x / scale) + zero point) to the dtype's own range."""
    if border.scale == 0 or not border.dtype.startswith(("int", "uint")):
        return array.astype(border.dtype, copy=False)
    ends = np.iinfo(border.dtype)
    steps = np.round(array.astype(np.float32) / np.float32(border.scale)) + np.float32(border.zero)
    return np.clip(steps, ends.min, ends.max).astype(border.dtype)


def from_border(array: Array, border: Border) -> Array:
    """An array in the file's type as real numbers: (q − zero point) · scale."""
    if border.scale == 0 or array.dtype.kind not in "iu":
        return array
    return (array.astype(np.int32) - border.zero).astype(np.float32) * np.float32(border.scale)


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
