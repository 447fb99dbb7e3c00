from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from qpipe.data import open_role
from qpipe.execute.work.answering import collect_answers
from qpipe.records.data import DataSpec, RoleSpec
from qpipe.records.tensors import Signature, TensorSpec
from qpipe.store import Store
from qpipe.testing.progress import Silent

ROWS = np.random.default_rng(5).normal(size=(9, 4)).astype(np.float32)
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 4)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 4)),),
)


class Dynamic:
    """A session that rounds to one step of the whole batch's range, as dynamic quantization does."""

    kind, signature = "measured", SIGNATURE

    def __init__(self, steps):
        self.steps, self.sizes = steps, []

    def run(self, inputs):
        self.sizes.append(len(inputs["x"]))
        step = np.abs(inputs["x"]).max() / self.steps
        return {"y": np.round(inputs["x"] / step) * step}

    def close(self):
        self.closed = True


@pytest.fixture
def whole(tmp_path):
    np.savez(tmp_path / "gate.npz", x=ROWS)
    spec = RoleSpec(role="gate", npz=tmp_path / "gate.npz")
    return open_role(DataSpec(inputs=(), label=None, preprocess=(), roles=(spec,)), "gate", SIGNATURE)


class TwoOutputs(Dynamic):
    """The same as its second output; the first one does not depend on the batch."""

    signature = Signature(
        inputs=SIGNATURE.inputs, outputs=(TensorSpec(name="same", dtype="float32", shape=("N", 4)), *SIGNATURE.outputs)
    )

    def run(self, inputs):
        return {"same": inputs["x"], **super().run(inputs)}


def answers_of(session, sizes, whole, tmp_path, *, rows=None):
    backend = SimpleNamespace(open=lambda *_: session)
    target = SimpleNamespace(batch_sizes=sizes, name="board", host=SimpleNamespace(rows=rows))
    model, recipe = SimpleNamespace(signature=SIGNATURE), SimpleNamespace(is_reference=False)
    cell = SimpleNamespace(target=target, model=model, recipe=recipe, data=whole.data, role="gate")
    bench = SimpleNamespace(
        backend=backend, cell=cell, job=SimpleNamespace(fresh=""), store=Store(tmp_path / "store"), progress=Silent()
    )
    return collect_answers(bench, None, whole)


@pytest.mark.parametrize("served", [1, 4])
def test_an_engine_whose_answers_depend_on_the_batch_is_judged_in_the_batch_it_is_served_in(served, whole, tmp_path):
    session = Dynamic(steps=16)
    found = answers_of(session, (served, 2), whole, tmp_path)
    wanted = [Dynamic(steps=16).run({"x": ROWS[start : start + served]})["y"] for start in range(0, 9, served)]
    assert np.array_equal(found.outputs.tensors["y"], np.concatenate(wanted))
    assert found.batch == served
    (remark,) = found.remarks
    assert remark.kind == "neighbours"
    assert remark.warns
    assert f"dB at {served}, " in remark.message
    assert remark.message.endswith(f"judged at {served}, the target's first batch size")
    assert session.closed


class AloneNaN(Dynamic):
    """Rounds nothing, and has no number for a row that comes alone."""

    def run(self, inputs):
        return {"y": inputs["x"] * (np.nan if len(inputs["x"]) == 1 else 1)}


def test_an_engine_without_numbers_in_the_batch_it_is_served_in_is_judged_there(whole, tmp_path):
    found = answers_of(AloneNaN(steps=1), (1,), whole, tmp_path)
    assert np.isnan(found.outputs.tensors["y"]).all()
    assert "(not finite in the same places at 1 against 16 at once)" in found.remarks[0].message


def test_an_engine_that_answers_each_row_for_itself_is_run_once(whole, tmp_path):
    session = Dynamic(steps=1 << 22)
    found = answers_of(session, (1, 2), whole, tmp_path)
    assert (found.batch, found.remarks) == (None, ())
    assert session.sizes == [9, *[1] * 4, *[2] * 4]


@pytest.mark.parametrize(("output", "batch"), [("y", 1), ("same", None)])
def test_the_output_that_is_judged_decides(output, batch, whole, tmp_path):
    asked = replace(whole, data=replace(whole.data, output=output))
    found = answers_of(TwoOutputs(steps=16), (1,), asked, tmp_path)
    assert (found.batch, next(iter(found.outputs.tensors))) == (batch, output)


class Emulated(Dynamic):
    """Answers each row for itself, and counts the rows that it was given."""

    kind = "emulated"

    def __init__(self):
        self.sizes = []

    @property
    def remarks(self):
        return (f"ran {sum(self.sizes)} rows",)

    def run(self, inputs):
        self.sizes.append(len(inputs["x"]))
        return {"y": inputs["x"]}


@pytest.mark.parametrize(
    ("rows", "said"), [(None, ("ran 9 rows",)), (4, ("ran 4 rows", "ran 4 of 9 rows: so says the target's host"))]
)
def test_an_emulator_runs_as_many_rows_as_its_host_says_and_both_are_told(rows, said, whole, tmp_path):
    found = answers_of(Emulated(), (1,), whole, tmp_path, rows=rows)
    assert (found.kind, found.role.rows, found.outputs.rows) == ("emulated", rows or 9, rows or 9)
    assert [(one.kind, one.subject, one.message) for one in found.remarks] == [("device", "board", one) for one in said]


def test_a_host_that_runs_engines_itself_runs_all_rows(whole, tmp_path):
    assert answers_of(Dynamic(steps=1 << 22), (1,), whole, tmp_path, rows=4).role.rows == 9


def test_rows_of_another_length_are_left_out_of_what_is_fed_and_taken_for_no_disagreement(tmp_path):
    mask = np.ones((6, 4), np.int64)
    mask[2:4, 2:] = 0
    np.savez(tmp_path / "gate.npz", x=ROWS[:6] * mask.astype(np.float32), mask=mask)
    spec = RoleSpec(role="gate", npz=tmp_path / "gate.npz")
    free = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("N", "L")),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("N", "L")),),
    )
    data = DataSpec(inputs=(), label=None, preprocess=(), roles=(spec,), trim="mask", batch=2)
    session = Dynamic(steps=1 << 22)
    session.signature = free
    found = answers_of(session, (1,), open_role(data, "gate", free), tmp_path)
    assert (found.batch, found.remarks) == (None, ())
    assert np.allclose(found.outputs.tensors["y"], ROWS[:6] * mask, atol=1e-5)
