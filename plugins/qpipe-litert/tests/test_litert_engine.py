"""The whole way: plan to `.tflite`, opened, compared with the float ONNX model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import edge_models as edge
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from qpipe_litert.backend import LiteRtBackend
from qpipe_litert.flatbuffer import read_flatbuffer
from qpipe_litert.session import read_layout

from qpipe.errors import EngineError
from qpipe.records.engine import Engine, Prepared
from qpipe.records.target import Target

TARGET = Target(name="x86-litert", backend="litert")


def test_int8_digits_lose_at_most_half_a_point(
    digits_engine: Engine, digits_ready: Prepared, digits: edge.Digits
) -> None:
    session = LiteRtBackend().open(digits_engine, TARGET)
    found = session.run({"input": digits.gate})["logits"]
    wanted = edge.run_onnx(digits_ready.graph.path, digits.gate)[0]
    drop = np.mean(wanted.argmax(1) == digits.label) - np.mean(found.argmax(1) == digits.label)
    assert drop <= 0.005
    assert edge.sqnr_db(wanted, found) > 25
    assert digits_engine.placement is not None
    assert digits_engine.placement.float == 0
    assert digits_engine.placement.elsewhere == 0
    said = next(note for note in digits_engine.placement.notes if "own minimum and maximum" in note)
    agreed, total = map(int, re.findall(r"on (\d+) of (\d+) tensors", said)[0])
    assert agreed == total >= 5
    ran = {one.node: one.kernel for one in digits_engine.placement.nodes}  # told by the ONNX names of outputs
    weighted = [node.output[0] for node in onnx.load(digits_ready.graph.path).graph.node if node.op_type == "Gemm"]
    assert weighted
    assert all(ran[name] == "xnnpack FULLY_CONNECTED int8" for name in weighted)


def test_session_hides_layout_and_any_batch(digits_engine: Engine, digits: edge.Digits) -> None:
    assert read_layout(digits_engine.path).inputs[0].permutation == (0, 2, 3, 1)
    flat = read_flatbuffer(digits_engine.main_file)
    assert {flat.tensors[i].dtype for i in (*flat.inputs, *flat.outputs)} == {"float32"}  # integers are the default
    session = LiteRtBackend().open(digits_engine, TARGET)
    whole = session.run({"input": digits.gate[:7]})["logits"]
    single = np.concatenate([session.run({"input": digits.gate[i : i + 1]})["logits"] for i in range(7)])
    assert whole.shape == (7, 10)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, single, atol=1e-5)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({}, "inputs are missing; the engine has input"),
        ({"input": np.zeros((1, 8, 8, 1), np.float32)}, r"float32\[1, 8, 8, 1\]"),
        ({"input": np.zeros((1, 1, 8, 8))}, "float64"),
    ],
)
def test_session_refuses_other_inputs(digits_engine: Engine, feed: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        LiteRtBackend().open(digits_engine, TARGET).run(feed)


@pytest.mark.parametrize(
    ("mode", "bits", "floor_db"), [("dynamic", 8, 25), ("weight-only", 8, 28), ("weight-only", 4, 8)]
)
@pytest.mark.usefixtures("tool")
def test_weights_alone(digits: edge.Digits, tmp_path: Path, mode: edge.Mode, bits: int, floor_db: float) -> None:
    ready = edge.prepared(edge.digits_net(), tmp_path / "m", digits.calibration, mode=mode, bits=bits)
    engine = edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e")
    found = LiteRtBackend().open(engine, TARGET).run({"input": digits.gate})["logits"]
    wanted = edge.run_onnx(ready.graph.path, digits.gate)[0]
    assert edge.sqnr_db(wanted, found) > floor_db
    weights = {tensor.dtype for tensor in read_flatbuffer(engine.main_file).tensors if tensor.constant}
    assert f"int{bits}" in weights
    assert engine.main_file.stat().st_size < ready.graph.size_bytes * (0.45 if bits == 8 else 0.35)


def test_float16_graph_gives_float16_weights(tool: None, digits: edge.Digits, tmp_path: Path) -> None:
    model = edge.digits_net()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    ready = edge.prepared(model, tmp_path / "m")
    engine = edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e")
    found = LiteRtBackend().open(engine, TARGET).run({"input": digits.gate[:50].astype(np.float16)})["logits"]
    assert found.dtype == np.float16
    wanted = edge.run_onnx(edge.digits_net(), digits.gate[:50])[0]
    assert edge.sqnr_db(wanted, found.astype(np.float32)) > 45
    assert "float16" in {tensor.dtype for tensor in read_flatbuffer(engine.main_file).tensors if tensor.constant}
    assert engine.placement is not None
    assert engine.placement.integer == 0  # the kernels read what a DEQUANTIZE has widened
    assert "its weights are stored in float16 and read as float32" in {n.reason for n in engine.placement.left_in_float}
    assert not [name for name, _ in engine.placement.kernels if name.endswith(("CONV_2D float16", "CONNECTED float16"))]


def test_without_a_plan_the_engine_is_the_float_model(tool: None, digits: edge.Digits, tmp_path: Path) -> None:
    ready = edge.prepared(edge.digits_net(), tmp_path / "m")
    engine = edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e")
    found = LiteRtBackend().open(engine, TARGET).run({"input": digits.gate})["logits"]
    np.testing.assert_allclose(found, edge.run_onnx(ready.graph.path, digits.gate)[0], atol=1e-4)
    assert engine.placement is not None
    assert engine.placement.integer == 0


def test_int8_borders_clip_to_their_own_range(
    tool: None, digits: edge.Digits, digits_ready: Prepared, tmp_path: Path
) -> None:
    target = replace(TARGET, options={"io": "int8"})
    engine = edge.built_engine(LiteRtBackend(), digits_ready, target, tmp_path / "e")
    flat = read_flatbuffer(engine.main_file)
    assert {flat.tensors[i].dtype for i in (*flat.inputs, *flat.outputs)} == {"int8"}
    session = LiteRtBackend().open(engine, target)
    found = session.run({"input": digits.gate})["logits"]
    wanted = edge.run_onnx(digits_ready.graph.path, digits.gate)[0]
    assert np.mean(found.argmax(1) == wanted.argmax(1)) > 0.98
    far = digits.gate[:8] * 1000  # without clipping, int8 would wrap around
    clipped = np.clip(far, digits.calibration.min() * 1.02, digits.calibration.max() * 1.02)
    np.testing.assert_array_equal(session.run({"input": far})["logits"], session.run({"input": clipped})["logits"])


def test_engine_that_is_no_tflite_is_refused(digits_engine: Engine, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.tflite").write_bytes(b"no flatbuffer at all")
    (broken / "layout.json").write_bytes((digits_engine.path / "layout.json").read_bytes())
    with pytest.raises(EngineError, match=r"LiteRT cannot load model\.tflite"):
        LiteRtBackend().open(replace(digits_engine, path=broken), TARGET)
    (broken / "layout.json").unlink()
    with pytest.raises(EngineError, match=r"layout\.json cannot be read"):
        LiteRtBackend().open(replace(digits_engine, path=broken), TARGET)
