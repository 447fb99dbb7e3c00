"""Edits of a `.tflite` that change no value: what the converter leaves undone."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from qpipe_litert.flatbuffer import builtin, listed

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import BufferT, ModelT, OperatorT, SubGraphT

T = TypeVar("T", bound=np.generic)

WEIGHTED = (
    "FULLY_CONNECTED",
    "CONV_2D",
    "CONV_3D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "BATCH_MATMUL",
    "GATHER",
    "EMBEDDING_LOOKUP",
)
"""Operators whose constant operands are most of a file."""
FEWEST_HALVES = 32
"""Values; an operator that widens fewer takes more of the file than they do."""


def inline_buffers(data: bytes) -> bytes:
    """The same model with every buffer inside the flatbuffer, as tflite-micro and C arrays need it."""
    model = opened(data)
    for buffer in model.buffers:
        if buffer.offset > 1:
            start, stop = buffer.offset, buffer.offset + buffer.size
            buffer.data = np.frombuffer(data[start:stop], np.uint8)
            buffer.offset = buffer.size = 0
    return packed(model, len(data))


def free_batch(data: bytes) -> bytes:
    """The same model with `Reshape` targets that begin with one row made to begin with any number of rows."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    model = opened(data)
    graph = model.subgraphs[0]
    codes = [builtin(code) for code in model.operatorCodes]
    for op in graph.operators:
        if codes[op.opcodeIndex] != BuiltinOperator.RESHAPE or len(op.inputs) < 2:
            continue
        buffer = model.buffers[graph.tensors[op.inputs[1]].buffer]
        source = listed(graph.tensors[op.inputs[0]].shape)
        if buffer.data is None or not source or source[0] != 1:
            continue
        wanted = held(buffer, np.int32).copy()
        if len(wanted) and wanted[0] == 1 and -1 not in wanted:
            wanted[0] = -1
            buffer.data = np.frombuffer(wanted.tobytes(), np.uint8)
            if op.builtinOptions is not None and op.builtinOptions.newShape is not None:
                op.builtinOptions.newShape = [int(dim) for dim in wanted]
    return packed(model, len(data))


def fuse_relu(data: bytes) -> bytes:
    """The same model with each lone Relu folded into the operator before it, across layout changes.

    XNNPACK has no integer kernel for a Relu of its own; as the fused activation of a convolution it costs nothing.
    """
    from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator

    model = opened(data)
    graph = model.subgraphs[0]
    codes = [builtin(code) for code in model.operatorCodes]
    fused = {
        BuiltinOperator.RELU: ActivationFunctionType.RELU,
        BuiltinOperator.RELU6: ActivationFunctionType.RELU6,
        BuiltinOperator.RELU_N1_TO_1: ActivationFunctionType.RELU_N1_TO_1,
    }
    for relu in [op for op in graph.operators if codes[op.opcodeIndex] in fused]:
        maker, last = _weighted_maker(graph, codes, int(relu.inputs[0]))
        if maker is not None and last is not None:
            maker.builtinOptions.fusedActivationFunction = fused[codes[relu.opcodeIndex]]
            last.outputs = relu.outputs
            graph.operators.remove(relu)
    drop_unused(model)
    return packed(model, len(data))


def matmul_as_dense(data: bytes) -> bytes:
    """The same model with each batched product by a constant matrix as a fully connected operator.

    Only the latter has kernels with one scale per channel.
    """
    from ai_edge_litert.schema_py_generated import BuiltinOperator, BuiltinOptions, FullyConnectedOptionsT, TensorType

    model = opened(data)
    graph = model.subgraphs[0]
    codes = [builtin(code) for code in model.operatorCodes]
    for op in list(graph.operators):
        if codes[op.opcodeIndex] != BuiltinOperator.BATCH_MATMUL or op.builtinOptions.adjX:
            continue
        weight = graph.tensors[op.inputs[1]]
        buffer = model.buffers[weight.buffer]
        alone = sum(int(op.inputs[1]) in other.inputs for other in graph.operators) == 1
        alone = alone and sum(tensor.buffer == weight.buffer for tensor in graph.tensors) == 1
        if weight.type != TensorType.FLOAT32 or len(listed(weight.shape)) != 2 or buffer.data is None or not alone:
            continue
        if not op.builtinOptions.adjY:
            turned = np.ascontiguousarray(held(buffer, np.float32).reshape(tuple(int(size) for size in weight.shape)).T)
            buffer.data, weight.shape = np.frombuffer(turned.tobytes(), np.uint8), np.array(turned.shape, np.int32)
        options = FullyConnectedOptionsT()
        options.keepNumDims = True
        op.inputs, op.builtinOptions = [int(op.inputs[0]), int(op.inputs[1]), -1], options
        op.builtinOptionsType = BuiltinOptions.FullyConnectedOptions
        op.opcodeIndex = code_index(model, BuiltinOperator.FULLY_CONNECTED, version=5)  # `keep_num_dims`
        _take_bias(model, op)
    drop_unused(model)
    return packed(model, len(data))


def store_half(data: bytes) -> bytes:
    """The same model with weights and tables in float16 where every value of them is one; kernels read float32.

    A weight that was kept in float32 has other values and stays. Interpreters widen each constant once.
    """
    from ai_edge_litert.schema_py_generated import TensorType

    model = opened(data)
    for buffer, owners in _weights(model).items():
        values = held(model.buffers[buffer], np.float32)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < FEWEST_HALVES or not np.array_equal(half.astype(np.float32), values):
            continue
        model.buffers[buffer].data = np.frombuffer(half.tobytes(), np.uint8)
        for graph, index in owners:
            stored = copy(graph.tensors[index])
            stored.name, stored.type = bytes(stored.name) + b"_float16", TensorType.FLOAT16
            graph.tensors[index].buffer = 0
            graph.tensors.append(stored)
            graph.operators.insert(0, _widening(model, len(graph.tensors) - 1, index))
    return packed(model, len(data))


def _weights(model: ModelT) -> dict[int, list[tuple[SubGraphT, int]]]:
    """Buffers that hold nothing but float32 operands of products and lookups, with the tensors that read them."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType

    codes = {getattr(BuiltinOperator, name) for name in WEIGHTED}
    found: dict[int, list[tuple[SubGraphT, int]]] = {}
    refused = {0}
    for graph in model.subgraphs:
        others = [op for op in graph.operators if builtin(model.operatorCodes[op.opcodeIndex]) not in codes]
        other = {int(index) for op in others for index in listed(op.inputs)}
        other |= {int(index) for index in (*graph.inputs, *graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            held = model.buffers[tensor.buffer].data is not None
            if held and tensor.type == TensorType.FLOAT32 and len(listed(tensor.shape)) > 1 and index not in other:
                found.setdefault(tensor.buffer, []).append((graph, index))
            else:
                refused.add(tensor.buffer)
    return {buffer: owners for buffer, owners in found.items() if buffer not in refused}


def _widening(model: ModelT, stored: int, wide: int) -> OperatorT:
    from ai_edge_litert.schema_py_generated import BuiltinOperator, BuiltinOptions, DequantizeOptionsT, OperatorT

    op = OperatorT()
    op.opcodeIndex = code_index(model, BuiltinOperator.DEQUANTIZE, version=3)  # float16
    op.inputs, op.outputs = [stored], [wide]
    op.builtinOptionsType, op.builtinOptions = BuiltinOptions.DequantizeOptions, DequantizeOptionsT()
    return op


def drop_unused(model: ModelT) -> None:
    """Leave out tensors that nothing reads or writes: tools that look at every tensor find no memory behind them."""
    graph = model.subgraphs[0]
    used = {int(index) for index in (*graph.inputs, *graph.outputs)}
    used |= {int(index) for op in graph.operators for index in (*listed(op.inputs), *listed(op.outputs)) if index >= 0}
    kept = [index for index in range(len(graph.tensors)) if index in used]
    place = {old: new for new, old in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in kept]
    graph.inputs, graph.outputs = ([place[int(index)] for index in side] for side in (graph.inputs, graph.outputs))
    for op in graph.operators:
        op.inputs = [place[int(index)] for index in listed(op.inputs)]
        op.outputs = [place[int(index)] for index in listed(op.outputs)]
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex:
            continue
        for ends in (*(signature.inputs or ()), *(signature.outputs or ())):
            ends.tensorIndex = place[int(ends.tensorIndex)]


def fuse_transposed_bias(data: bytes) -> bytes:
    """The same model with what is added to a transposed convolution as its bias."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    model = opened(data)
    codes = [builtin(code) for code in model.operatorCodes]
    if BuiltinOperator.TRANSPOSE_CONV not in codes:
        return data
    for op in list(model.subgraphs[0].operators):
        if codes[op.opcodeIndex] == BuiltinOperator.TRANSPOSE_CONV and len(op.inputs) == 3:
            _take_bias(model, op)
            if len(op.inputs) > 3:
                op.opcodeIndex = code_index(model, BuiltinOperator.TRANSPOSE_CONV, version=4)  # bias, activation
    drop_unused(model)
    return packed(model, len(data))


def _take_bias(model: ModelT, weighted: OperatorT) -> None:
    """Fold a constant vector that is added next into the weighted operator."""
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    graph = model.subgraphs[0]
    made = int(weighted.outputs[0])
    readers = [op for op in graph.operators if made in op.inputs]
    code = model.operatorCodes[readers[0].opcodeIndex] if len(readers) == 1 else None
    if code is None or made in graph.outputs or builtin(code) != BuiltinOperator.ADD:
        return
    add = readers[0]
    other = next((int(index) for index in add.inputs if index != made), made)
    bias = graph.tensors[other]
    width = int(listed(graph.tensors[int(weighted.inputs[1])].shape)[0])
    if model.buffers[bias.buffer].data is None or listed(bias.shape) not in ([width], [1, 1, 1, width]):
        return
    if sum(other in listed(op.inputs) for op in graph.operators) > 1:
        return
    bias.shape = np.array([width], np.int32)
    weighted.inputs = [*[index for index in weighted.inputs if index >= 0], other]
    weighted.builtinOptions.fusedActivationFunction = add.builtinOptions.fusedActivationFunction
    weighted.outputs = add.outputs
    graph.operators.remove(add)


def code_index(model: ModelT, wanted: int, version: int) -> int:
    """The operator's place among the codes, of this version at least."""
    from ai_edge_litert.schema_py_generated import OperatorCodeT

    for index, code in enumerate(model.operatorCodes):
        if builtin(code) == wanted:
            code.version = max(code.version, version)
            return index
    code = OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = wanted
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _weighted_maker(graph: SubGraphT, codes: list[int], tensor: int) -> tuple[OperatorT | None, OperatorT | None]:
    """The operator that can take the activation, and the one that makes `tensor`, along tensors that only one reads."""
    from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator

    taking = (
        BuiltinOperator.CONV_2D,
        BuiltinOperator.DEPTHWISE_CONV_2D,
        BuiltinOperator.FULLY_CONNECTED,
        BuiltinOperator.ADD,
    )
    moving = (BuiltinOperator.TRANSPOSE, BuiltinOperator.RESHAPE)
    last: OperatorT | None = None
    while True:
        readers = sum(1 for op in graph.operators if tensor in op.inputs)
        op = next((op for op in graph.operators if tensor in op.outputs), None)
        if op is None or readers != 1 or tensor in graph.outputs:
            return None, None
        last = last or op
        if codes[op.opcodeIndex] in moving:
            tensor = int(op.inputs[0])
            continue
        free = codes[op.opcodeIndex] in taking and (
            op.builtinOptions.fusedActivationFunction == ActivationFunctionType.NONE
        )
        return (op, last) if free else (None, None)


def held(buffer: BufferT, dtype: type[T]) -> NDArray[T]:
    """The values of a buffer that has data, in a line."""
    return np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), dtype)


def opened(data: bytes) -> ModelT:
    """The model as objects that can be edited."""
    from ai_edge_litert.schema_py_generated import Model, ModelT

    return ModelT.InitFromObj(Model.GetRootAs(data, 0))


def packed(model: ModelT, size: int) -> bytes:
    """The file of an edited model that had `size` bytes."""
    import flatbuffers

    builder = flatbuffers.Builder(size + 4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
