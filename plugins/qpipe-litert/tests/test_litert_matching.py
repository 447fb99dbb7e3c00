"""Tensors of a file whose shapes one set of kernels finds by itself and another reads from the file."""

from __future__ import annotations

from pathlib import Path

import edge_models as edge
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from qpipe_litert.layout import Layout, Port
from qpipe_litert.matching import match_tensors

from qpipe.errors import BuildError


def _relu_then_reshape(path: Path, shape: tuple[int, ...]) -> Path:
    """image [1,1,8,8] → Relu → Reshape to a shape that stands in the file."""
    codes, operators = [], []
    for at, (kind, inputs) in enumerate(
        ((schema.BuiltinOperator.RELU, [0]), (schema.BuiltinOperator.RESHAPE, [1, 3])),
    ):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        operator.opcodeIndex, operator.inputs, operator.outputs = at, inputs, [at + 1]
        codes.append(code)
        operators.append(operator)
    tensors = []
    for dims, buffer in (((1, 1, 8, 8), 0), ((1, 1, 8, 8), 0), (shape, 0), ((len(shape),), 1)):
        tensor = schema.TensorT()
        tensor.shape, tensor.buffer = list(dims), buffer
        tensor.type = schema.TensorType.INT32 if buffer else schema.TensorType.FLOAT32
        tensors.append(tensor)
    graph, model, empty, held = schema.SubGraphT(), schema.ModelT(), schema.BufferT(), schema.BufferT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [2], operators
    held.data = np.frombuffer(np.array(shape, np.int32).tobytes(), np.uint8)
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], codes, [empty, held]
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def test_one_row_matches_where_kernels_refuse_two(tmp_path: Path) -> None:
    """XNNPACK ran such files on two rows, so they were taken as free; the match met a traceback."""
    ready = edge.prepared(edge.single_op_net("Relu"), tmp_path / "m")
    port = Port(name="image", position=0, permutation=(0, 1, 2, 3))
    layout = Layout(inputs=(port,), outputs=(), any_batch=True)
    path = _relu_then_reshape(tmp_path / "m.tflite", (1, 64))
    found = match_tensors(ready, edge.single_op_net("Relu"), path, layout)
    assert found == {0: ("image",), 1: ("out",), 2: ("out",)}


def test_kernels_that_refuse_every_number_of_rows_are_told(tmp_path: Path) -> None:
    ready = edge.prepared(edge.single_op_net("Relu"), tmp_path / "m")
    port = Port(name="image", position=0, permutation=(0, 1, 2, 3))
    layout = Layout(inputs=(port,), outputs=(), any_batch=True)
    path = _relu_then_reshape(tmp_path / "m.tflite", (3, 7))
    with pytest.raises(BuildError, match=r"reference kernels cannot run the converted model: .*RESHAPE"):
        match_tensors(ready, edge.single_op_net("Relu"), path, layout)
