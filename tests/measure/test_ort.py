"""What onnxruntime says of a batch that it refuses."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from qpipe.errors import EngineError
from qpipe.measure.ort import OrtSession, cpu_options


def test_a_size_that_an_export_has_fixed_is_told_with_what_frees_it():
    """As the exporter of PyTorch that traces writes an attention: the example's length stands in a Reshape."""
    length = numpy_helper.from_array(np.array([-1, 24], np.int64), "length")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "length"], ["y"])],
        "traced",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "seq"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "seq"])],
        [length],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = OrtSession(ort.InferenceSession(model.SerializeToString(), cpu_options(1)))
    assert session.run({"x": np.zeros((2, 24), np.float32)})["y"].shape == (2, 24)
    with pytest.raises(EngineError, match="could not run this batch") as raised:
        session.run({"x": np.zeros((2, 21), np.float32)})
    assert "is fixed inside the graph: export it again" in raised.value.hint
