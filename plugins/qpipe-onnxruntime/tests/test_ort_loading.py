"""Graphs that load faster: the same numbers, and fewer operators for onnxruntime to take out."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper, parser
from onnx_ir.passes import common as passes
from qpipe_onnxruntime.lower.loading import copy_lengths, forget_initializers

CONSTANTS = {"i": 0, "j": 1, "zero": [0], "rest": [-1], "two": [2, -1]}
SIZE = "s = Shape(x) g = Gather(s, i) u = Unsqueeze(g, zero)"
BOTH = f"{SIZE} h = Gather(s, j) v = Unsqueeze(h, zero)"


def graph(body):
    head = "(float[N,6,M] x, float[K,6,M] z) => (float[A,B] y)"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {head} {{ {body} }}')
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(numbers), name) for name, numbers in CONSTANTS.items() if name in used
    )
    return ir.from_proto(model)


def run(model):
    options = ort.SessionOptions()
    options.log_severity_level, options.graph_optimization_level = 3, ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    shapes = {"x": (3, 6, 4), "z": (6, 6, 4)}
    feeds = {name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for name, shape in shapes.items()}
    return session.run(None, feeds)[0]


@pytest.mark.parametrize(
    ("body", "lengths"),
    [
        (f"{SIZE} c = Concat<axis=0>(u, rest) y = Reshape(x, c)", [0, -1]),
        (f"{SIZE} c = Concat<axis=0>(u, two) y = Reshape(x, c)", [0, 2, -1]),
        (f"{BOTH} c = Concat<axis=0>(u, v, rest) y = Reshape(x, c)", [0, 0, -1]),
        ("s = Shape(x) u = Gather(s, zero) c = Concat<axis=0>(u, rest) y = Reshape(x, c)", [0, -1]),
        (f"{BOTH} c = Concat<axis=0>(v, rest) y = Reshape(x, c)", None),  # another axis
        (f"{SIZE} c = Concat<axis=0>(rest, u) y = Reshape(x, c)", None),
        (f"{SIZE} c = Concat<axis=0>(u, rest) y = Reshape(z, c)", None),  # another tensor
        (f"{SIZE} d = Add(u, u) c = Concat<axis=0>(d, rest) y = Reshape(x, c)", None),
        ("s = Shape<start=1>(x) u = Gather(s, zero) c = Concat<axis=0>(u, rest) y = Reshape(x, c)", None),
        (f"{SIZE} c = Concat<axis=0>(u, rest) y = Reshape<allowzero=1>(x, c)", None),
        ("c = Shape(z) y = Reshape(z, c)", None),
    ],
)
def test_lengths_that_stay_are_copied(body, lengths):
    before = graph(body)
    after = before.clone()
    copy_lengths(after.graph)
    forget_initializers(after.graph)
    passes.RemoveUnusedNodesPass()(after)
    np.testing.assert_array_equal(run(after), run(before))
    (reshape,) = (node for node in after.graph if node.op_type == "Reshape")
    if lengths is None:
        assert reshape.inputs[1].producer() is not None
    else:
        assert len(after.graph) == 1
        assert reshape.inputs[1].const_value.numpy().tolist() == lengths


def test_what_initializers_say_themselves_is_not_written_twice():
    model = graph(f"{SIZE} c = Concat<axis=0>(u, rest) y = Reshape(x, c)")
    for value in model.graph.initializers.values():
        value.shape = value.const_value.shape
    assert ir.to_proto(model).graph.value_info
    forget_initializers(model.graph)
    found = ir.to_proto(model).graph
    assert not found.value_info
    assert {tensor.name for tensor in found.initializer} == {"i", "zero", "rest"}
