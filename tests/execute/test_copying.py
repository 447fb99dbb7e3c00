"""Copies among the rows that judge: one group each, unless the pipeline names groups; and what a run says of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from qpipe.data import open_role
from qpipe.execute.work.copying import copies_of, copy_remarks, groups_of
from qpipe.records.data import DataSpec, RoleSpec
from qpipe.records.tensors import Signature, TensorSpec
from qpipe.store import Store

SIGNATURE = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 1)),), outputs=())
ROWS = np.arange(8, dtype=np.float32)[:, None]


@pytest.fixture
def judged(tmp_path):
    """The gate role of a pipeline and what its cell finds, from gate and calibration rows."""

    def make(gate, *, calibration=ROWS, calibrates=True, group=None):
        np.savez(tmp_path / "gate.npz", x=gate, who=np.arange(len(gate)) // 4)
        np.savez(tmp_path / "calibration.npz", x=calibration)
        specs = (
            RoleSpec(role="gate", npz=tmp_path / "gate.npz", group=group),
            RoleSpec(role="calibration", npz=tmp_path / "calibration.npz"),
        )
        data = DataSpec(inputs=(), label=None, preprocess=(), roles=specs)
        recipe = SimpleNamespace(stages=(SimpleNamespace(name="quantize"),))
        bench = SimpleNamespace(
            cell=SimpleNamespace(data=data, recipe=recipe, model=SimpleNamespace(signature=SIGNATURE)),
            registry=SimpleNamespace(stage=lambda _: SimpleNamespace(needs_calibration=calibrates)),
            store=Store(tmp_path / "store"),
            job=SimpleNamespace(fresh=""),
        )
        role = open_role(data, "gate", SIGNATURE)
        return role, copies_of(bench, role)

    return make


def test_copies_are_one_group_and_told(judged):
    role, found = judged(np.repeat(ROWS + 50, 2, axis=0))
    groups = groups_of(role, found)
    assert len({*groups}) == 8
    assert (groups[::2] == groups[1::2]).all()
    (remark,) = copy_remarks(role, found, groups_of(role, found))
    assert remark.warns
    assert "8 of 16 gate rows are copies of another" in remark.message
    assert "8 groups" in remark.message


def test_other_gate_rows_have_copies_of_their_own(judged):
    assert [judged(gate)[1].repeated for gate in (np.repeat(ROWS + 50, 2, axis=0), ROWS + 50)] == [8, 0]


def test_groups_that_the_pipeline_names_stand(judged):
    role, found = judged(np.repeat(ROWS + 50, 2, axis=0), group="who")
    assert groups_of(role, found).tolist() == (np.arange(16) // 4).tolist()
    assert copy_remarks(role, found, groups_of(role, found)) == ()


def test_named_groups_that_share_a_row_are_one_and_told(judged):
    """Four groups of four rows; the last row of the first stands in the third again."""
    rows = np.arange(16, dtype=np.float32)[:, None] + 50
    rows[8] = rows[3]
    role, found = judged(rows, group="who")
    groups = groups_of(role, found)
    assert (len({*groups}), groups[0]) == (3, groups[8])
    (remark,) = copy_remarks(role, found, groups_of(role, found))
    assert "stand in different groups of 'who': intervals count 3 groups instead of 4" in remark.message
    assert remark.warns


def test_rows_without_copies_have_no_groups(judged):
    role, found = judged(ROWS + 50)
    assert groups_of(role, found) is None
    assert copy_remarks(role, found, groups_of(role, found)) == ()


def test_gate_rows_that_calibration_saw_are_told_where_a_recipe_calibrates(judged):
    role, found = judged(ROWS + 5)
    (remark,) = copy_remarks(role, found, groups_of(role, found))
    assert "3 of 8 gate rows stand in the calibration rows too" in remark.message
    role, found = judged(ROWS + 5, calibrates=False)
    assert copy_remarks(role, found, groups_of(role, found)) == ()
