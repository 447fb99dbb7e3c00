"""What a `.tflite` file says of itself: operators, tensors, and where its buffers lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT

KEEPS_VALUES = (
    "RESHAPE",
    "TRANSPOSE",
    "SQUEEZE",
    "EXPAND_DIMS",
    "MAX_POOL_2D",
    "PAD",
    "SLICE",
    "STRIDED_SLICE",
    "SPLIT",
    "GATHER",
    "PACK",
    "UNPACK",
    "BROADCAST_TO",
    "SPACE_TO_DEPTH",
    "CONCATENATION",
)
"""Operators whose quantized kernels demand one scale for inputs and outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatTensor:
    """One tensor of the main subgraph."""

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: bool
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatOp:
    """One operator of the main subgraph; tensors by index."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    custom: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatModel:
    """The main subgraph of a `.tflite`."""

    tensors: tuple[FlatTensor, ...]
    ops: tuple[FlatOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    outside_buffers: int
    """Buffers that lie outside the flatbuffer: tflite-micro would read garbage there."""


def read_flatbuffer(path: Path) -> FlatModel:
    """Operators and tensors of the first subgraph."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator, Model, ModelT, TensorType

    model = ModelT.InitFromObj(Model.GetRootAs(path.read_bytes(), 0))
    graph = model.subgraphs[0]
    types = {value: name.lower() for name, value in vars(TensorType).items() if isinstance(value, int)}
    codes = {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}
    tensors = []
    for index, tensor in enumerate(graph.tensors):
        buffer = model.buffers[tensor.buffer]
        quantized = tensor.quantization
        tensors.append(
            FlatTensor(
                index=index,
                name=_text(tensor.name),
                dtype=types[tensor.type],
                shape=tuple(int(dim) for dim in _listed(tensor.shape)),
                constant=_has_data(buffer),
                scale=tuple(float(value) for value in _listed(quantized.scale if quantized else None)),
                zero_point=tuple(int(value) for value in _listed(quantized.zeroPoint if quantized else None)),
            )
        )
    ops = []
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = code.customCode is not None
        ops.append(
            FlatOp(
                name=_text(code.customCode) if custom else codes[builtin],
                inputs=tuple(int(index) for index in _listed(op.inputs)),
                outputs=tuple(int(index) for index in _listed(op.outputs)),
                custom=custom,
            )
        )
    return FlatModel(
        tensors=tuple(tensors),
        ops=tuple(ops),
        inputs=tuple(int(index) for index in graph.inputs),
        outputs=tuple(int(index) for index in graph.outputs),
        outside_buffers=sum(1 for buffer in model.buffers if buffer.offset > 1),
    )


def inline_buffers(data: bytes) -> bytes:
    """The same model with every buffer inside the flatbuffer, as tflite-micro and C arrays need it."""
    import numpy as np
    from ai_edge_litert.schema_py_generated import Model, ModelT

    model = ModelT.InitFromObj(Model.GetRootAs(data, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:
            start, stop = buffer.offset, buffer.offset + buffer.size
            buffer.data = np.frombuffer(data[start:stop], np.uint8)
            buffer.offset = buffer.size = 0
    return _packed(model, len(data))


def free_batch(data: bytes) -> bytes:
    """The same model with `Reshape` targets that begin with one row made to begin with any number of rows."""
    import numpy as np
    from ai_edge_litert.schema_py_generated import BuiltinOperator, Model, ModelT

    model = ModelT.InitFromObj(Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    for op in graph.operators:
        if codes[op.opcodeIndex] != BuiltinOperator.RESHAPE or len(op.inputs) < 2:
            continue
        buffer = model.buffers[graph.tensors[op.inputs[1]].buffer]
        source = _listed(graph.tensors[op.inputs[0]].shape)
        if buffer.data is None or not source or source[0] != 1:
            continue
        wanted = np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), np.int32).copy()
        if len(wanted) and wanted[0] == 1 and -1 not in wanted:
            wanted[0] = -1
            buffer.data = np.frombuffer(wanted.tobytes(), np.uint8)
            if op.builtinOptions is not None and op.builtinOptions.newShape is not None:
                op.builtinOptions.newShape = [int(dim) for dim in wanted]
    return _packed(model, len(data))


def _packed(model: ModelT, size: int) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(size + 4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _has_data(buffer: object) -> bool:
    data = getattr(buffer, "data", None)
    return (data is not None and len(data) > 0) or int(getattr(buffer, "offset", 0)) > 1


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else (value or "")


def _listed(values: object) -> list[float]:
    return [] if values is None else list(values)  # type: ignore[call-overload] # numpy array or list
