"""How many rows an emulator runs: as the target's host says, always some of those that the role has."""

from types import SimpleNamespace

import numpy as np
import pytest

from qpipe.data import open_role
from qpipe.execute.work.answering import FEW, emulated_rows
from qpipe.records.data import DataSpec, RoleSpec
from qpipe.records.target import Host, Target
from qpipe.records.tensors import Signature, TensorSpec

ROWS = 400
MODEL = SimpleNamespace(
    signature=Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 1)),), outputs=())
)


@pytest.fixture
def cell(tmp_path):
    """A cell of an emulated target, by rows of its host, and what its gate role is."""
    np.savez(tmp_path / "gate.npz", x=np.arange(ROWS, dtype=np.float32)[:, None], who=np.arange(ROWS) // 2)

    def make(rows, *, reference=False, **role):
        spec = RoleSpec(role="gate", npz=tmp_path / "gate.npz", **role)
        return SimpleNamespace(
            target=Target(name="arm64", backend="b", host=Host(kind="emulator", address="qemu-aarch64", rows=rows)),
            recipe=SimpleNamespace(is_reference=reference),
            data=DataSpec(inputs=(("x", "x"),), label=None, preprocess=(), roles=(spec,)),
            role="gate",
            model=MODEL,
        )

    return make


def _run(cell):
    whole = open_role(cell.data, "gate", MODEL.signature)
    return whole, emulated_rows(cell, whole)


@pytest.mark.parametrize(
    ("rows", "reference", "ran"),
    [(None, False, ROWS), (None, True, FEW), (50, False, 50), (50, True, 50), (10 * ROWS, False, ROWS)],
)
def test_the_host_says_how_many_rows_run_and_a_float_engine_has_few(cell, rows, reference, ran):
    assert _run(cell(rows, reference=reference))[1].rows == ran


def test_the_rows_are_some_of_those_that_the_role_draws(cell):
    whole, some = _run(cell(40, samples=100, seed=7))
    assert (whole.rows, some.rows) == (100, 40)
    drawn, ran = ({float(x) for x in role.column("x")[:, 0]} for role in (whole, some))
    assert ran < drawn


def test_groups_stay_together(cell):
    whole, some = _run(cell(None, reference=True, group="who"))
    assert some is whole
