"""What a `.tflite` file says of itself: operators, tensors, and where its buffers lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorCodeT

_FLOAT_BYTES = 4


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
    state: bool = False
    """What a recurrent operator keeps from step to step."""
    value: float | None = None
    """The number in a float constant that has one alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatOp:
    """One operator of the main subgraph; tensors by index."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    custom: bool
    activation: str = ""
    """What is fused into it (`RELU6`), or empty."""


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
    return flat_model(path.read_bytes())


def flat_model(data: bytes) -> FlatModel:
    """The same of a file's bytes."""
    from ai_edge_litert.schema_py_generated import Model, ModelT

    model = ModelT.InitFromObj(Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    return FlatModel(
        tensors=_tensors(model),
        ops=_ops(model),
        inputs=tuple(int(index) for index in graph.inputs),
        outputs=tuple(int(index) for index in graph.outputs),
        outside_buffers=sum(1 for buffer in model.buffers if buffer.offset > 1),
    )


def _tensors(model: ModelT) -> tuple[FlatTensor, ...]:
    from ai_edge_litert.schema_py_generated import TensorType

    types = {value: name.lower() for name, value in vars(TensorType).items() if isinstance(value, int)}
    tensors = []
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        quantized = tensor.quantization
        tensors.append(
            FlatTensor(
                index=index,
                name=_text(tensor.name),
                dtype=types[tensor.type],
                shape=tuple(int(dim) for dim in listed(tensor.shape)),
                constant=_has_data(model.buffers[tensor.buffer]),
                scale=tuple(float(value) for value in listed(quantized.scale if quantized else None)),
                zero_point=tuple(int(value) for value in listed(quantized.zeroPoint if quantized else None)),
                state=bool(tensor.isVariable),
                value=_only_value(model.buffers[tensor.buffer]) if tensor.type == TensorType.FLOAT32 else None,
            )
        )
    return tuple(tensors)


def _ops(model: ModelT) -> tuple[FlatOp, ...]:
    from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator

    codes = {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}
    fused = {value: name for name, value in vars(ActivationFunctionType).items() if isinstance(value, int) and value}
    ops = []
    for op in model.subgraphs[0].operators:
        code = model.operatorCodes[op.opcodeIndex]
        custom = code.customCode is not None
        ops.append(
            FlatOp(
                name=_text(code.customCode) if custom else codes[builtin(code)],
                inputs=tuple(int(index) for index in listed(op.inputs)),
                outputs=tuple(int(index) for index in listed(op.outputs)),
                custom=custom,
                activation=fused.get(getattr(op.builtinOptions, "fusedActivationFunction", 0), ""),
            )
        )
    return tuple(ops)


def builtin(code: OperatorCodeT) -> int:
    """The built-in operator that a code stands for: files have it in the one field or in the other."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _has_data(buffer: object) -> bool:
    data = getattr(buffer, "data", None)
    return (data is not None and len(data) > 0) or int(getattr(buffer, "offset", 0)) > 1


def _only_value(buffer: object) -> float | None:
    data = getattr(buffer, "data", None)
    return None if data is None or len(data) != _FLOAT_BYTES else struct.unpack("<f", bytes(data))[0]


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else (value or "")


def listed(values: object) -> list[float]:
    """A flatbuffer vector (array, list or absent) as a list."""
    return [] if values is None else list(values)  # type: ignore[call-overload] # numpy array or list
