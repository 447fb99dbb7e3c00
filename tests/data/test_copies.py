"""Rows of the gate that are the same input, and those that calibration has seen."""

from __future__ import annotations

import numpy as np
import pytest

from qpipe.data import find_copies, merge_groups, open_role
from qpipe.records.data import DataSpec, Preprocess, RoleSpec
from qpipe.records.tensors import Signature, TensorSpec

VECTOR = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 3)),), outputs=())
TEXT = Signature(inputs=(TensorSpec(name="ids", dtype="int64", shape=("N", "L")),), outputs=())
ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)


@pytest.fixture
def roles(tmp_path):
    """Roles of a pipeline by name, from their columns."""

    def make(signature=VECTOR, *, trim=None, preprocess=(), **columns):
        specs = []
        for name, found in columns.items():
            np.savez(tmp_path / f"{name}.npz", **found)
            specs.append(RoleSpec(role=name, npz=tmp_path / f"{name}.npz"))
        data = DataSpec(inputs=(), label=None, preprocess=preprocess, roles=tuple(specs), trim=trim)
        return [open_role(data, name, signature) for name in columns]

    return make


def test_copies_have_the_number_of_their_input(roles):
    (gate,) = roles(gate={"x": ROWS[[0, 1, 0, 2, 1, 0]]})
    found = find_copies(gate)
    assert (found.distinct, found.repeated, found.calibrated) == (3, 3, 0)
    assert len({*zip(found.inputs.tolist(), [0, 1, 0, 2, 1, 0], strict=True)}) == 3


def test_rows_that_differ_have_inputs_of_their_own(roles):
    (gate,) = roles(gate={"x": ROWS})
    assert find_copies(gate).repeated == 0


def test_padding_that_trim_masks_out_makes_no_other_input(roles):
    ids, mask = np.array([[5, 6, 0], [5, 6, 9], [5, 6, 9]]), np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1]])
    (gate,) = roles(TEXT, trim="mask", gate={"ids": ids, "mask": mask})
    assert find_copies(gate).inputs[[0, 1]].tolist() == [find_copies(gate).inputs[0]] * 2
    assert find_copies(gate).distinct == 2


def test_gate_rows_that_calibration_has_seen_are_counted_whatever_their_dtype(roles):
    steps = (Preprocess(column="x"),)
    gate, calibration = roles(
        preprocess=steps, gate={"x": ROWS[[0, 1, 2, 2]]}, calibration={"x": ROWS[[2, 7]].astype(np.uint8)}
    )
    found = find_copies(gate, calibration)
    assert (found.calibrated, found.repeated, found.distinct) == (2, 1, 3)


@pytest.mark.parametrize(
    ("groups", "inputs", "merged"),
    [
        ("aabb", [0, 1, 2, 3], [0, 0, 1, 1]),
        ("aabb", [0, 0, 1, 1], [0, 0, 1, 1]),
        ("aabbcc", [0, 1, 1, 2, 3, 4], [0, 0, 0, 0, 1, 1]),
        ("aabbcc", [0, 1, 1, 2, 2, 3], [0, 0, 0, 0, 0, 0]),
    ],
)
def test_groups_that_share_an_input_are_one(groups, inputs, merged):
    found = merge_groups(np.array(list(groups)), np.array(inputs))
    assert np.unique(found, return_inverse=True)[1].tolist() == merged
