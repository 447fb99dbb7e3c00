"""Weights for packs of pixels stored as they were: the operators that spread them, which run at load alone."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qpipe_onnxruntime.lower.pixels import Packs, Rows, fits, pack_weights
from qpipe_onnxruntime.lower.spread import Spread, spread_at_load, store_small

from qpipe.quant.writer import Writer

LEVELS = ort.GraphOptimizationLevel
ROWS = Rows(width=12, kernel=3, left=1, right=1, stride=1)
FOUR_OUT = Packs(image=1, result=4)


def spreads(shapes, rows, packs, *, opset=17, others=0):
    """A graph whose outputs are weights for packs, as initializers, and what they were made of."""
    random, found = np.random.default_rng(0), []
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="g")
    writer = Writer(graph)
    writer.initializer("others", np.ones(others, np.int8))
    for number, shape in enumerate(shapes):
        weights = random.integers(-127, 128, shape).astype(np.int8)
        packed = writer.initializer(f"w{number}", pack_weights(weights, rows, packs))
        reader = ir.node("Identity", [packed])
        reader.outputs[0].name, reader.outputs[0].type = f"out{number}", ir.TensorType(ir.DataType.INT8)
        graph.append(reader)
        graph.outputs.extend(reader.outputs)
        found.append(Spread(packed=packed, weights=weights, rows=rows, packs=packs))
    return ir.Model(graph, ir_version=8), found


def run(model, level=LEVELS.ORT_DISABLE_ALL):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.graph_optimization_level = 1, 3, level
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {})


KINDS = st.tuples(
    st.builds(
        Rows,
        width=st.integers(1, 4).map(lambda packs: 4 * packs),
        kernel=st.integers(1, 7),
        left=st.integers(0, 3),
        right=st.integers(0, 3),
        stride=st.sampled_from([1, 2, 4]),
    ),
    st.builds(Packs, image=st.sampled_from([1, 2, 4]), result=st.sampled_from([1, 2, 4])),
).filter(lambda kind: kind[0].outputs > 0 and fits(*kind))


@settings(max_examples=30, deadline=None)
@given(kind=KINDS, shape=st.tuples(*[st.integers(1, 4)] * 3), count=st.integers(1, 3))
def test_the_graph_spreads_weights_as_numpy_does(kind, shape, count):
    rows, packs = kind
    model, found = spreads([(*shape, rows.kernel)] * count, rows, packs)
    spread_at_load(Writer(model.graph), model.graph[0], found)
    for ours, one in zip(run(model), found, strict=True):
        np.testing.assert_array_equal(ours, pack_weights(one.weights, rows, packs))


@pytest.mark.parametrize("opset", [13, 18, 21])
def test_opsets_and_the_names_of_weights(opset):
    model, found = spreads([(16, 16, 3, 3)] * 2, ROWS, FOUR_OUT, opset=opset)
    expected = run(model)
    assert store_small(model.graph, found) == 2
    for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC):
        for ours, theirs in zip(run(model, level), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    (split,) = (node for node in model.graph if node.op_type == "Split")
    assert [value.name for value in split.outputs] == ["w0", "w1"]


@pytest.mark.parametrize(
    ("shapes", "others", "stored"),
    [
        ([(16, 16, 3, 3)], 0, 1),
        ([(16, 16, 3, 3)], 300_000, 1),
        ([(16, 16, 3, 3)], 310_000, 0),  # less than 5 % of all weights
        ([(16, 16, 3, 3)] * 2, 310_000, 2),
        ([(8, 8, 3, 3)], 0, 0),  # less than LEAST_BYTES
        ([(8, 8, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3)], 0, 3),
        ([(16, 16, 3, 3), (8, 8, 3, 3)], 0, 1),
    ],
)
def test_weights_are_stored_small_where_that_saves_a_noticeable_share(shapes, others, stored):
    model, found = spreads(shapes, ROWS, FOUR_OUT, others=others)
    expected = run(model)
    assert store_small(model.graph, found) == stored
    for ours, theirs in zip(run(model), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
