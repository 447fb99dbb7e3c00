"""What the int8 output of the last layer costs is told apart from the rest of the quantization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from qpipe.quant.rendering.outputs import with_float_outputs

ROWS = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)


def _graph(folder: Path, *, pair: bool) -> Path:
    """y = x·2, and where `pair` stands behind it, in steps of 0.5."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["z" if pair else "y"])]
    if pair:
        nodes += [
            helper.make_node("QuantizeLinear", ["z", "step", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["y"]),
        ]
    weights = {"two": np.float32(2), "step": np.float32(0.5), "zero": np.int8(0)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(weights[n]), n) for n in (weights if pair else ("two",))],
    )
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _run(model: bytes) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": ROWS})[0]


def test_the_pair_before_an_output_is_taken_away(tmp_path: Path) -> None:
    path = _graph(tmp_path, pair=True)
    model = with_float_outputs(path)
    assert model is not None
    np.testing.assert_array_equal(_run(model.SerializeToString()), ROWS * 2)
    assert np.abs(_run(path.read_bytes()) - ROWS * 2).max() == pytest.approx(0.25, abs=0.05)


def test_float_outputs_have_nothing_to_tell_apart(tmp_path: Path) -> None:
    assert with_float_outputs(_graph(tmp_path, pair=False)) is None
