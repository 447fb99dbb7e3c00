"""Weights in a file beside the graph, as MLflow writes every ONNX model."""

from pathlib import Path

import onnx
import pytest

from qpipe.quant.graph import save_graph
from qpipe.quant.schemes import ORT_ARM64
from qpipe.quant.static import quantize_static
from qpipe.testing.models import small_batches, write_small_model


@pytest.mark.parametrize("normalized", [False, True])
def test_weights_in_a_file_beside_are_quantized_like_weights_inside(tmp_path, normalized):
    inside = onnx.load(write_small_model(tmp_path).file.path)
    if normalized:
        _normalize(inside.graph)  # folded into the convolution, which is then compared with what it was
        onnx.save_model(inside, tmp_path / "small.onnx")
    beside = tmp_path / "beside"
    beside.mkdir()
    onnx.save_model(
        inside, beside / "model.onnx", save_as_external_data=True, location="weights.data", size_threshold=0
    )
    found = [_quantized(path) for path in (tmp_path / "small.onnx", beside / "model.onnx")]
    assert found[0] == found[1]


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
