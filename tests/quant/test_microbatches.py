"""Batches in pieces: no row is lost, none twice, and what lives at once is what the graph's shapes say."""

import numpy as np
import pytest
from networks import network
from onnx_ir import serde

from qpipe.errors import DataError
from qpipe.quant.microbatches import CACHED_BYTES, Slicer, first_rows, live_bytes


def model(head, body, arrays=None):
    return serde.deserialize_model(network(head, body, arrays or {}))


FREE = "(float[N,K] x) => (float[N,K] y)"
CHAIN = "a = Relu(x) b = Neg(a) y = Add(a, b)"
"""Three tensors of the input's size live while the sum is made."""


def zeros(*shape, name="x"):
    return {name: np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("head", "batch", "sizes"),
    [
        (FREE, zeros(10, 16), [4, 4, 2]),
        (FREE, zeros(1, 16), [1]),
        (FREE, zeros(3, 4096), [1, 1, 1]),
        ("(float[5,16] x) => (float[5,16] y)", zeros(10, 16), [5, 5]),
        ("(float[5,16] x) => (float[5,16] y)", zeros(11, 16), [11]),
        ("(float[N] x) => (float[N] y)", {"x": np.float32(1)}, None),
        ("(float[N,16] x, float[N] z) => (float[N,16] y)", zeros(4, 16) | zeros(3, name="z"), None),
        ("(float[N,16] x, float[4] z) => (float[N,16] y)", zeros(4, 16) | zeros(4, name="z"), [4]),
    ],
)
def test_pieces_hold_every_row_once(head, batch, sizes):
    given = {name: np.arange(array.size, dtype=np.float32).reshape(array.shape) for name, array in batch.items()}
    parts = list(Slicer(model(head, CHAIN), 4 * 3 * 64).parts(given))
    if sizes is None:
        assert parts == [given]
    else:
        assert [len(part["x"]) for part in parts] == sizes
        for name, array in given.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)


def test_of_no_rows_there_is_no_piece():
    assert list(Slicer(model(FREE, CHAIN), 4 * 3 * 64).parts(zeros(0, 16))) == []


def test_rows_of_another_length_are_weighed_by_their_elements():
    slicer = Slicer(model(FREE, CHAIN), 4 * 3 * 64)
    assert len(list(slicer.parts(zeros(8, 16)))) == 2
    assert len(list(slicer.parts(zeros(8, 32)))) == 4
    assert set(slicer.per_row.values()) == {3 * 64, 6 * 64}


def test_no_more_than_the_cache_holds():
    assert Slicer(model(FREE, CHAIN), 2**40).bound == CACHED_BYTES
    assert Slicer(model(FREE, CHAIN), 0).bound == 1


@pytest.mark.parametrize(
    ("body", "tensors"),
    [
        (CHAIN, 3),
        ("a = Relu(x) b = Neg(a) y = Neg(b)", 2),  # `a` is gone when `y` is made
        ("y = Neg(x)", 1),
        ("a = Relu(x) b = Add(a, a) c = Neg(b) d = Neg(c) y = Add(c, d)", 3),  # `a` is read twice and goes once
        ("a = Relu(x) b = Neg(x) y = Neg(x)", 1),  # nobody reads `a` and `b`
        ("a = NonZero(x) b = Cast<to=1>(a) c = Neg(b) y = Relu(x)", 2),  # of unknown length: as large as what is read
    ],
)
def test_live_bytes(body, tensors):
    assert live_bytes(model(FREE, body), zeros(4, 16)) == tensors * 4 * 16 * 4


def test_the_first_rows_of_the_first_batch():
    free, fixed = model(FREE, CHAIN), model("(float[5,16] x) => (float[5,16] y)", CHAIN)
    assert len(first_rows(free, iter([zeros(10, 16) | {"label": np.zeros(10)}]), 8)["x"]) == 8
    assert list(first_rows(free, iter([zeros(10, 16) | {"label": np.zeros(10)}]), 8)) == ["x"]
    assert len(first_rows(fixed, iter([zeros(10, 16)]), 8)["x"]) == 5
    with pytest.raises(DataError, match="no rows"):
        first_rows(free, iter([]), 8)
