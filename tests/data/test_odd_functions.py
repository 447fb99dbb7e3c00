"""Functions that yield rows in ways that nobody promised."""

import numpy as np
import pytest

from qpipe.data import check_overlap, open_role
from qpipe.errors import DataError
from qpipe.records.data import DataSpec, RoleSpec
from qpipe.records.tensors import Signature, TensorSpec

VECTOR = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("N", "L")),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 3)),),
)
SOURCE = """
import numpy as np

X = np.arange(240, dtype=np.float32).reshape(60, 4)
LABEL = np.arange(60) % 3
CALLS = [0]

def whole():
    yield {"x": X, "label": LABEL}

def shuffled():
    order = np.random.permutation(60)
    yield {"x": X[order], "label": LABEL[order]}

def shrinking():
    CALLS[0] += 1
    yield from whole()
    if CALLS[0] < 5:
        yield from whole()

def raising():
    yield from whole()
    raise OSError("the disk is gone")

def hungry(rows):
    yield from whole()

def wider_inputs():
    yield from whole()
    yield {"x": X.astype(np.float64) * 1e300, "label": LABEL}

def wider_labels():
    yield from whole()
    yield {"x": X, "label": LABEL + 0.5}

def masked():
    yield {"x": X, "label": np.ma.masked_equal(LABEL, 2)}

def structured():
    yield {"x": X, "label": np.zeros(60, [("class", "i4")])}

def lengths():
    yield {"x": X[:20], "label": LABEL[:20]}
    yield {"x": X[20:, :3], "label": LABEL[20:]}

def empty_first():
    yield {"x": np.array([]), "label": np.array([])}
    yield from whole()

def unmasked():
    yield {"x": np.ma.masked_array(X), "label": np.asarray(LABEL, ">i8")}

def reused():
    x = np.empty((20, 4), np.float32)
    for start in range(0, 60, 20):
        x[:] = X[start : start + 20]
        yield {"x": x, "label": LABEL[start : start + 20]}
"""


def role(folder, name):
    (folder / "odd_rows.py").write_text(SOURCE)
    entry = RoleSpec(role="gate", fn=f"odd_rows:{name}", fn_path=folder)
    data = DataSpec(inputs=(), label="label", preprocess=(), roles=(entry,))
    check_overlap(data, VECTOR)
    return open_role(data, "gate", VECTOR)


def rows_of(opened):
    return np.concatenate([batch["x"][: batch.rows, 0] for batch in opened.batches()]), opened.column("label")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shuffled", "yields other rows than when it was first called"),
        ("shrinking", "yielded 120 rows when it was first called, and 60 now"),
        ("raising", r"raised OSError: the disk is gone \(odd_rows\.py, line \d+\)"),
        ("hungry", "raised TypeError: hungry.. missing 1 required positional argument"),
        ("wider_inputs", "batch 1: column 'x' is float64, the first batch has float32"),
        ("wider_labels", "batch 1: column 'label' is float64, the first batch has int64"),
        ("masked", "batch 0: column 'label' has masked values"),
        ("structured", "batch 0: column 'label' is a structured array"),
    ],
)
def test_what_would_be_read_wrongly_is_an_error(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        rows_of(role(tmp_path, name))


@pytest.mark.parametrize("name", ["whole", "lengths", "empty_first", "unmasked", "reused"])
def test_what_may_be_yielded(tmp_path, name):
    first, label = rows_of(role(tmp_path, name))
    np.testing.assert_array_equal(first, np.arange(0, 240, 4, dtype=np.float32))
    np.testing.assert_array_equal(label, np.arange(60) % 3)
