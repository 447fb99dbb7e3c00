"""A recurrent operator keeps its state between two runs of an interpreter: a row must not see the one before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import edge_models as edge
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from qpipe_litert.backend import LiteRtBackend
from qpipe_litert.convert import find_layout
from qpipe_litert.device_runtime import open_engine
from qpipe_litert.flatbuffer import FlatModel, FlatOp, FlatTensor
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.layout import Layout, Port
from qpipe_litert.matching import _file_tensors
from qpipe_litert.onnx_rewrite import last_states_as_steps, states_read
from qpipe_litert.placement import place
from qpipe_litert.quantize import ops_left_in_float
from qpipe_litert.ranges import CarriedRanges
from qpipe_litert.session import LocalEngine

from qpipe.errors import BuildError
from qpipe.quant.schemes import LITERT
from qpipe.records.quantization import QuantPlan
from qpipe.records.target import Target

TARGET = Target(name="x86-litert", backend="litert")
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


def _last_state(kind: str, state: int, direction: str) -> onnx.ModelProto:
    """A dense layer on the last state of a recurrent node over `x` [N,5,8]."""
    gates, ways = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 1 + (direction == "bidirectional")
    outputs = ", ".join(("steps", "h", "c")[: 2 + (kind == "LSTM")])
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,5,8] x) => (float[N,4] y) {{
        t = Transpose<perm=[1,0,2]>(x) {outputs} = {kind}<hidden_size=16, direction="{direction}">(t, w, r)
        u = Transpose<perm=[1,0,2]>({"_hc"[state]}) s = Reshape(u, flat) y = Gemm(s, k)
    }}"""
    model, random = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in {"w": (ways, 16 * gates, 8), "r": (ways, 16 * gates, 16), "k": (16 * ways, 4)}.items():
        array = random.normal(0, 0.3, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, -1]), "flat"))
    return model


@pytest.mark.parametrize(
    ("kind", "state", "direction", "left"),
    [
        ("LSTM", 1, "forward", ()),
        ("LSTM", 1, "reverse", ()),
        ("RNN", 1, "forward", ()),
        ("RNN", 1, "reverse", ()),
        ("GRU", 1, "forward", ()),
        ("LSTM", 1, "bidirectional", ("h",)),
        ("LSTM", 2, "forward", ("c",)),
    ],
)
def test_a_last_state_is_the_last_step(kind: str, state: int, direction: str, left: tuple[str, ...]) -> None:
    model = _last_state(kind, state, direction)
    made = last_states_as_steps(model)
    assert (states_read(model), states_read(made)) == (left, left)
    assert ("Gather" in {node.op_type for node in made.graph.node}) == (not left)
    rows = np.random.default_rng(1).normal(size=(3, 5, 8)).astype(np.float32)
    np.testing.assert_array_equal(edge.run_onnx(made, rows)[0], edge.run_onnx(model, rows)[0])


@pytest.mark.parametrize(("kind", "kernels"), [("LSTM", "xnnpack"), ("GRU", "reference")])
@pytest.mark.usefixtures("tool")
def test_an_engine_has_the_last_state(kind: str, kernels: str, tmp_path: Path) -> None:
    """onnx2tf writes a wrong file where the state of a recurrent node itself is read."""
    rows = np.random.default_rng(1).normal(size=(3, 5, 8)).astype(np.float32)
    model, target = _last_state(kind, 1, "forward"), replace(TARGET, options={"kernels": kernels})
    engine = edge.built_engine(LiteRtBackend(), edge.prepared(model, tmp_path / "m"), target, tmp_path / "e")
    found = LiteRtBackend().open(engine, target).run({"x": rows})["y"]
    np.testing.assert_allclose(found, edge.run_onnx(model, rows)[0], atol=1e-5)


def test_another_state_is_refused_with_what_to_read_instead(recurrent: Path, tmp_path: Path) -> None:
    ready = edge.prepared(_last_state("LSTM", 2, "forward"), tmp_path / "m")
    with pytest.raises(BuildError, match="the converted model is not the float model") as told:
        find_layout(ready, onnx.load(ready.graph.path), recurrent, free=False)
    assert told.value.hint == "onnx2tf goes wrong where a state is read (c): read steps of the first output instead"
