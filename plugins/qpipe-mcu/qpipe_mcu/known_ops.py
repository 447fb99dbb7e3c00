"""Operators that tflite-micro has in one form alone: the converter writes another, which computes the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qpipe_litert.flatbuffer import builtin, listed
from qpipe_litert.flatbuffer_edit import code_index, drop_unused, opened, packed

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT


def in_known_forms(data: bytes) -> bytes:
    """The same model with constant shapes, `SELECT_V2`, places of the largest as int32, pixels read by `DEQUANTIZE`."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    model = opened(data)
    changed = False
    for op in model.subgraphs[0].operators:
        code = builtin(model.operatorCodes[op.opcodeIndex])
        if code == BuiltinOperator.SELECT:
            changed |= _as_select_v2(model, op)
        elif code in {BuiltinOperator.ARG_MAX, BuiltinOperator.ARG_MIN}:
            changed |= _as_int32(model, op)
        elif code == BuiltinOperator.CAST:
            changed |= _as_dequantize(model, op)
        elif code == BuiltinOperator.RESHAPE:
            changed |= _to_known_shape(model, op)
    _drop_unread(model)
    return packed(model, len(data)) if changed else data


def _as_select_v2(model: ModelT, op: OperatorT) -> bool:
    """Only for operands of one shape: `SELECT` also chooses whole rows by a vector."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator, BuiltinOptions, SelectV2OptionsT

    shapes = [listed(model.subgraphs[0].tensors[int(index)].shape) for index in op.inputs]
    if shapes[0] != shapes[1]:
        return False
    op.opcodeIndex = code_index(model, BuiltinOperator.SELECT_V2, version=1)
    op.builtinOptionsType, op.builtinOptions = BuiltinOptions.SelectV2Options, SelectV2OptionsT()
    return True


def _as_int32(model: ModelT, op: OperatorT) -> bool:
    """Places are the model's own int64 again at the border of a session."""
    from ai_edge_litert.schema_py_generated import TensorType

    graph, made = model.subgraphs[0], int(op.outputs[0])
    read = any(made in listed(other.inputs) for other in graph.operators)
    if read or graph.tensors[made].type != TensorType.INT64:
        return False
    graph.tensors[made].type = op.builtinOptions.outputType = TensorType.INT32
    return True


def _as_dequantize(model: ModelT, op: OperatorT) -> bool:
    """Pixels as they are: one step to a level."""
    from ai_edge_litert.schema_py_generated import (
        BuiltinOperator,
        BuiltinOptions,
        DequantizeOptionsT,
        QuantizationParametersT,
        TensorType,
    )

    pixels, made = (model.subgraphs[0].tensors[int(index)] for index in (op.inputs[0], op.outputs[0]))
    if (pixels.type, made.type) != (TensorType.UINT8, TensorType.FLOAT32):
        return False
    pixels.quantization = QuantizationParametersT()
    pixels.quantization.scale, pixels.quantization.zeroPoint = [1.0], [0]
    op.opcodeIndex = code_index(model, BuiltinOperator.DEQUANTIZE, version=1)
    op.builtinOptionsType, op.builtinOptions = BuiltinOptions.DequantizeOptions, DequantizeOptionsT()
    return True


def _to_known_shape(model: ModelT, op: OperatorT) -> bool:
    """The shape of a file for one row is known: the converter computes it from other shapes."""
    from ai_edge_litert.schema_py_generated import BufferT, TensorT, TensorType

    graph = model.subgraphs[0]
    made = graph.tensors[int(op.outputs[0])]
    known = listed(made.shape)
    asked = any(int(index) in listed(other.outputs) for index in op.inputs[1:] for other in graph.operators)
    if not asked or min(known, default=1) < 1:
        return False
    buffer, shape = BufferT(), TensorT()
    buffer.data = np.array(known, np.int32).view(np.uint8)
    model.buffers.append(buffer)
    shape.name, shape.shape = bytes(made.name) + b"_shape", np.array([len(known)], np.int32)
    shape.type, shape.buffer = TensorType.INT32, len(model.buffers) - 1
    graph.tensors.append(shape)
    op.inputs = [int(op.inputs[0]), len(graph.tensors) - 1]
    return True


def _drop_unread(model: ModelT) -> None:
    """Leave out operators whose results nothing reads, and their tensors."""
    graph = model.subgraphs[0]
    while True:
        read = {int(index) for op in graph.operators for index in listed(op.inputs)}
        read |= {int(index) for index in graph.outputs}
        kept = [op for op in graph.operators if read & {int(index) for index in listed(op.outputs)}]
        if len(kept) == len(graph.operators):
            drop_unused(model)
            return
        graph.operators = kept
