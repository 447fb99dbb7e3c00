"""A recurrent operator keeps its state between two runs of an interpreter: a row must not see the one before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from qpipe_litert.device_runtime import open_engine
from qpipe_litert.flatbuffer import FlatModel, FlatOp, FlatTensor
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.layout import Layout, Port
from qpipe_litert.matching import _file_tensors
from qpipe_litert.placement import place
from qpipe_litert.quantize import ops_left_in_float
from qpipe_litert.ranges import CarriedRanges
from qpipe_litert.session import LocalEngine

from qpipe.quant.schemes import LITERT
from qpipe.records.quantization import QuantPlan

UNITS = 2


def _tensor(shape: tuple[int, ...], *, buffer: int = 0, state: bool = False) -> schema.TensorT:
    made = schema.TensorT()
    made.shape, made.type, made.buffer, made.isVariable = list(shape), schema.TensorType.FLOAT32, buffer, state
    return made


def _buffer(array: np.ndarray | None) -> schema.BufferT:
    made = schema.BufferT()
    made.data = None if array is None else np.frombuffer(array.astype(np.float32).tobytes(), np.uint8)
    return made


@pytest.fixture
def recurrent(tmp_path: Path) -> Path:
    """h = x + h of the step before, over one step: a row alone gives itself."""
    options = schema.SequenceRNNOptionsT()
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1, 2, 3, 4], [5]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.SequenceRNNOptions, options
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_RNN
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor((1, 1, UNITS)),
        _tensor((UNITS, UNITS), buffer=1),
        _tensor((UNITS, UNITS), buffer=1),
        _tensor((UNITS,), buffer=2),
        _tensor((1, UNITS), state=True),
        _tensor((1, 1, UNITS)),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [5], [operator]
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [_buffer(None), _buffer(np.eye(UNITS)), _buffer(np.zeros(UNITS))]
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "recurrent.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def test_a_recurrent_operator_in_float_counts_as_one(recurrent):
    placement, _ = place(recurrent, "xnnpack")
    assert (placement.integer, placement.float) == (0, 1)
    assert [node.op for node in placement.left_in_float] == ["UNIDIRECTIONAL_SEQUENCE_RNN"]


def test_tensors_of_a_recurrent_file_are_read(recurrent):
    """An interpreter that keeps intermediates cannot reset state: every static plan of an RNN met a traceback."""
    port = Port(name="x", position=0, permutation=(0, 1, 2))
    row = np.array([[[1.0, -2.0]]], np.float32)
    found = _file_tensors(recurrent, Layout(inputs=(port,), outputs=(), any_batch=False), {"x": row})
    np.testing.assert_array_equal(found[5], row)


def test_an_operator_that_writes_a_state_stays_float():
    """Behind an integer one the runtime found no state: an RNN with an initial state could not be run."""
    tensors = tuple(
        FlatTensor(index=i, name=name, dtype="float32", shape=(1,), constant=False, state=name == "h")
        for i, name in enumerate(("x", "h"))
    )
    op = FlatOp(name="RESHAPE", inputs=(0,), outputs=(1,), custom=False)
    flat = FlatModel(tensors=tensors, ops=(op,), inputs=(0,), outputs=(), outside_buffers=0)
    plan = QuantPlan(scheme=LITERT, mode="static", activations=(), weights=(), nodes=())
    carried = CarriedRanges(ranges={0: (0.0, 1.0), 1: (0.0, 1.0)}, missing=())
    (left,) = ops_left_in_float(plan, flat, {}, carried, {})
    assert (left.output, left.reason) == ("h", "it writes the state of a recurrent operator")


def test_no_row_sees_the_one_before_it(recurrent):
    row = np.array([[[1.0, -2.0]]], np.float32)
    engine = LocalEngine(recurrent, threads=1, kernels="xnnpack")
    interpreter = open_interpreter(recurrent)
    device = open_engine(str(recurrent), 1, "reference")
    for _ in range(3):
        np.testing.assert_array_equal(engine.run((row,))[0], row)
        np.testing.assert_array_equal(invoke(interpreter, (row,))[0], row)
        device.prepare([row])
        device.invoke()
        np.testing.assert_array_equal(device.outputs()[0], row)
