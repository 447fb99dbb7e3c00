"""Made-up rows, and how well two computations agree on them."""

from __future__ import annotations

import numpy as np
import pytest

from qpipe.measure.probe import agreements, probe_inputs, probe_shapes, worst
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
    )
    best = ShapeRange(name="ids", low=(1, 1), best=(8, 12), high=(8, 20))
    signature = Signature(inputs=specs, outputs=())
    prepared = Prepared(graph=file, plan=None, qdq=None, shapes=(best,), signature=signature)
    shapes = probe_shapes(prepared)
    assert shapes == {"image": (2, 32, 32, 3), "ids": (2, 12), "x": (4, 16)}
    feed = probe_inputs(prepared, shapes)
    assert {name: array.dtype.name for name, array in feed.items()} == {
        "image": "uint8",
        "ids": "int64",
        "x": "float16",
    }
    assert feed["image"].max() > 200
    assert set(np.unique(feed["ids"])) == {0, 1}
