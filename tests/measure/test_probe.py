"""Made-up rows, and how well two computations agree on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from networks import write_network

from qpipe.measure.probe import agreements, beyond_rounding, probe_inputs, probe_shapes, worst
from qpipe.records.engine import Prepared
from qpipe.records.model import OnnxFile
from qpipe.records.tensors import ShapeRange, Signature, TensorSpec

INF = float("inf")
NAN = float("nan")


@pytest.mark.parametrize(
    ("wanted", "found", "least", "most"),
    [
        ([1.0, 2.0], [1.0, 2.0], INF, INF),
        ([1.0, 2.0], [1.0, 2.002], 55, 65),
        ([1.0, NAN, -INF], [1.0, NAN, -INF], INF, INF),
        ([1.0, NAN, 2.0], [1.0, NAN, 2.002], 55, 65),
        ([1.0, NAN], [1.0, 2.0], -INF, -INF),
        ([1.0, INF], [1.0, -INF], -INF, -INF),
        ([1.0, 2.0], [[1.0, 2.0]], -INF, -INF),
        ([0.0, 0.0], [1e-9, 0.0], INF, INF),
        ([0.0, 0.0], [1.0, 0.0], 0, 0),
        ([], [], INF, INF),
    ],
)
def test_agreement_of_one_output(wanted, found, least, most):
    (one,) = agreements({"y": np.array(wanted)}, {"y": np.array(found)})
    assert least <= one.db <= most


def test_the_worst_output_is_named_and_integers_count_by_shape():
    wanted = {"y": np.ones(3), "top": np.array([1, 2]), "z": np.ones(2)}
    found = {"y": np.ones(3) * 1.1, "top": np.array([1, 3]), "z": np.ones(2)}
    assert str(worst(agreements(wanted, found))) == "20.0 dB"
    assert worst(agreements(wanted, found)).output == "y"
    found["top"] = np.array([[1, 2]])
    assert str(worst(agreements(wanted, found))) == "its shape is [1, 2], the graph's [2]"


@pytest.mark.parametrize(("found", "said"), [([1, 2], "the same numbers"), ([1, 3], "the same shape, other integers")])
def test_integers_that_differ_are_not_called_the_same(found, said):
    (one,) = agreements({"top": np.array([1, 2])}, {"top": np.array(found)})
    assert (one.db, str(one)) == (INF, said)


def test_rows_are_the_usual_size_and_images_have_all_levels(tmp_path):
    file = OnnxFile(path=tmp_path / "m.onnx", digest="0", size_bytes=1)
    specs = (
        TensorSpec(name="image", dtype="uint8", shape=("N", 32, 32, 3)),
        TensorSpec(name="ids", dtype="int64", shape=("N", "length")),
        TensorSpec(name="x", dtype="float16", shape=(4, None)),
        TensorSpec(name="grey", dtype="uint8", shape=("N", 32, 32)),
        TensorSpec(name="flags", dtype="uint8", shape=("N", 32)),
    )
    best = ShapeRange(name="ids", low=(1, 1), best=(8, 12), high=(8, 20))
    signature = Signature(inputs=specs, outputs=())
    prepared = Prepared(graph=file, plan=None, qdq=None, shapes=(best,), signature=signature)
    shapes = probe_shapes(prepared)
    assert shapes == {"image": (2, 32, 32, 3), "ids": (2, 12), "x": (4, 16), "grey": (2, 32, 32), "flags": (2, 32)}
    feed = probe_inputs(prepared, shapes)
    assert {name: array.dtype.name for name, array in feed.items()} == {
        "image": "uint8",
        "ids": "int64",
        "x": "float16",
        "grey": "uint8",
        "flags": "uint8",
    }
    assert min(feed["image"].max(), feed["grey"].max()) > 200
    assert set(np.unique(feed["ids"])) == set(np.unique(feed["flags"])) == {0, 1}
    assert feed["x"].std() > 0.5, "no range is known, and zeros would agree with anything"


def test_an_engine_may_be_as_far_from_the_float_graph_as_the_plan(tmp_path):
    path = write_network(tmp_path / "m.onnx", "(float[N,400] x) => (float[N,400] y)", "y = Relu(x)", {})
    spec = TensorSpec(name="x", dtype="float32", shape=("N", 400))
    signature = Signature(inputs=(spec,), outputs=(replace(spec, name="y"),))
    file = OnnxFile(path=path, digest="0", size_bytes=1)
    prepared = Prepared(graph=file, plan=None, qdq=None, shapes=(), signature=signature)
    rng = np.random.default_rng(0)
    x = np.abs(rng.normal(size=(2, 400))).astype(np.float32)
    planned, alike, worse = ({"y": x + scale * rng.normal(size=x.shape)} for scale in (0.1, 0.15, 0.3))
    for found, too_far in ((alike, []), (worse, ["y"])):
        wrong = beyond_rounding(agreements(planned, found), prepared, {"x": x}, planned, found)
        assert [one.output for one in wrong] == too_far
