"""Weights in a file beside the graph, as MLflow writes every ONNX model."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qpipe.quant.check import run_float
from qpipe.quant.graph import open_graph, save_graph, tensors
from qpipe.quant.schemes import ORT_ARM64
from qpipe.quant.static import quantize_static
from qpipe.testing.models import small_batches, write_small_model


@pytest.mark.parametrize("normalized", [False, True])
def test_weights_in_a_file_beside_are_quantized_like_weights_inside(tmp_path, normalized):
    inside = onnx.load(write_small_model(tmp_path).file.path)
    if normalized:
        _normalize(inside.graph)  # folded into the convolution, which is then compared with what it was
        onnx.save_model(inside, tmp_path / "small.onnx")
    beside = _beside(inside, tmp_path / "beside").parent
    found = [_quantized(path) for path in (tmp_path / "small.onnx", beside / "model.onnx")]
    assert found[0] == found[1]


def _beside(inside: onnx.ModelProto, folder: Path) -> Path:
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save_model(inside, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    return path


def test_a_session_maps_weights_that_lie_in_files(tmp_path, monkeypatch):
    """Read into the graph, written into a message and parsed again, 0.7 GB of weights took 5.4 GB to calibrate."""
    source = write_small_model(tmp_path).file.path
    model = open_graph(_beside(onnx.load(source), tmp_path / "beside"))
    for where in ("graph", "session"):
        monkeypatch.setattr(f"qpipe.quant.{where}.LARGE_BYTES", 64)
    feed = next(small_batches())
    monkeypatch.setattr("qpipe.quant.session.save_graph", None)  # nothing is written either
    found = run_float(model, feed)
    assert all(isinstance(tensor, ir.ExternalTensor) for tensor in tensors(model))
    monkeypatch.undo()
    np.testing.assert_array_equal(found[0], run_float(open_graph(source), feed)[0])


@pytest.mark.parametrize("beside", [False, True])
def test_large_weights_in_memory_go_to_a_file_for_the_session_and_beside_the_graph(tmp_path, monkeypatch, beside):
    source = write_small_model(tmp_path).file.path
    model = open_graph(_beside(onnx.load(source), tmp_path / "beside") if beside else source)
    value = next(iter(model.graph.initializers.values()))
    value.const_value = ir.Tensor(value.const_value.numpy() * 2, name=value.name)
    feed = next(small_batches())
    wanted = run_float(model, feed)
    for where in ("graph", "session"):
        monkeypatch.setattr(f"qpipe.quant.{where}.LARGE_BYTES", 64)
    np.testing.assert_array_equal(run_float(model, feed)[0], wanted[0])
    (tmp_path / "out").mkdir()
    saved = save_graph(model, tmp_path / "out" / "model.onnx")
    assert saved.with_name("model.onnx.data").is_file()
    np.testing.assert_array_equal(run_float(open_graph(saved), feed)[0], wanted[0])


def _normalize(graph):
    names = ("gamma", "beta", "mean", "variance")
    for name, value in zip(names, (1.5, 0.1, 0.2, 2.0), strict=True):
        graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [4], [value] * 4))
    graph.node[0].output[0] = "raw"
    node = onnx.helper.make_node("BatchNormalization", ["raw", *names], ["c1"], name="norm")
    graph.node.insert(1, node)


def _quantized(path: Path):
    found = quantize_static(path, small_batches, ORT_ARM64)
    return save_graph(found.qdq, path.with_name("qdq.onnx")).read_bytes()
