"""What an evaluation keeps: the engine's numbers beside the float model's, row by row, each in its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from qpipe.data import role_digest
from qpipe.execute.work.cell import prepare_model
from qpipe.execute.work.evaluating import evaluation_key
from qpipe.testing.models import small_rows, write_small_model
from qpipe.testing.session import FakeSession


@pytest.fixture
def top(place):
    """The float model's classes of rows, computed here."""
    write_small_model(place.folder)

    def classes(rows, *, turned=False):
        session = onnxruntime.InferenceSession(place.folder / "small.onnx", providers=["CPUExecutionProvider"])
        logits = session.run(["logits"], {"image": rows})[0]
        return (-logits if turned else logits).argmax(axis=1)

    return classes


def test_each_side_has_its_own_numbers_of_the_same_rows(place, top):
    label = np.arange(64) % 3
    rows = {"gate": {"image": small_rows(64, 5), "label": label}}
    cell = place.cells(flip=0.5, rows=rows)["int8"]
    pair, stored = place.evaluated(cell)
    right = top(rows["gate"]["image"]) == label
    np.testing.assert_array_equal(stored["reference_units"][:, 0], right)
    assert pair.reference.value == pytest.approx(right.mean())
    assert pair.engine.value == pytest.approx(stored["units"].mean())
    turned = stored["agreement"] == 0
    assert 0.2 < turned.mean() < 0.8
    np.testing.assert_array_equal(stored["units"][~turned, 0], right[~turned])
    assert not (stored["units"][turned, 0] * right[turned]).any()
    assert stored["slice:label"].tolist() == [str(one) for one in label]
    assert stored["labelled"]
    assert pair.engine.sqnr_db < 20
    assert (pair.reference.sqnr_db, pair.reference.outputs_digest) == (None, "")
    assert (pair.reference.guessing, pair.engine.guessing) == (pytest.approx(1 / 3), None)
    steps = {step.name: step.metric for step in pair.attribution.steps}
    assert (steps["float"], steps["engine"]) == (pair.reference.value, pair.engine.value)


def test_copies_among_the_rows_that_judge_are_groups_and_told(place):
    image = np.repeat(small_rows(32, 5), 2, axis=0)
    calibration = np.concatenate([image[:4:2], small_rows(62, 6)])
    rows = {"gate": {"image": image, "label": np.zeros(64, int)}, "calibration": {"image": calibration}}
    cells = place.cells(rows=rows)
    pair, stored = place.evaluated(cells["int8"])
    assert len(np.unique(stored["groups"])) == 32
    assert [one.kind for one in pair.remarks if not one.of_calibration] == ["copies", "copies"]
    assert "4 of 64 gate rows stand in the calibration rows too" in pair.remarks[-1].message
    pair, stored = place.evaluated(cells["none"])  # nobody gates it
    assert "groups" not in stored


def test_what_calibration_and_the_judged_rows_show_of_the_ranges_is_told(place):
    rows = {
        "calibration": {"image": small_rows(8, 1)},
        "gate": {"image": 30 * small_rows(64, 2), "label": np.zeros(64, int)},
    }
    pair, _ = place.evaluated(place.cells(rows=rows)["int8"])
    assert {"few-rows", "other-inputs"} <= {one.kind for one in pair.remarks}


def test_an_emulators_sample_is_of_the_gate_rows_and_says_so(place):
    cell = place.cells(kind="emulated", target={"host": {"emulator": "qemu", "rows": 10}})["int8"]
    pair, stored = place.evaluated(cell)
    assert (pair.engine.kind, pair.reference.kind, pair.engine.rows, len(stored["agreement"])) == (
        "emulated",
        "measured",
        10,
        10,
    )
    assert pair.engine.data_digest == pair.reference.data_digest == role_digest(cell.data, "gate")
    assert "ran 10 of 64 rows: so says the target's host" in [one.message for one in pair.remarks]


def test_rows_without_labels_are_not_labelled(place):
    data = {"calibration": {"npz": "calibration.npz"}, "gate": {"npz": "gate.npz"}}
    pair, stored = place.evaluated(place.cells(pipeline={"data": data})["int8"])
    assert (pair.engine.value, pair.reference.value, pair.reference.guessing) == (None, None, None)
    assert (bool(stored["labelled"]), stored["units"].shape, stored["agreement"].shape) == (False, (64, 0), (64,))


def among_the_batch(model):
    """A second output: the logits turned round, in parts of the largest one of the batch."""
    model.graph.node.extend(
        [
            helper.make_node("Abs", ["logits"], ["sizes"]),
            helper.make_node("ReduceMax", ["sizes"], ["largest"], keepdims=0),
            helper.make_node("Div", ["logits", "largest"], ["parts"]),
            helper.make_node("Neg", ["parts"], ["turned"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("turned", onnx.TensorProto.FLOAT, ["N", 3]))


def test_the_float_model_is_judged_by_the_same_output_in_the_same_batch(place, top):
    image, label = small_rows(64, 5), np.arange(64) % 3
    data = {"label": "label", "output": "turned"} | {role: {"npz": f"{role}.npz"} for role in ("calibration", "gate")}
    rows = {"gate": {"image": image, "label": label}}
    pair, _ = place.evaluated(place.cells(rows=rows, pipeline={"data": data}, alter=among_the_batch)["none"])
    assert "judged at 1, the target's first batch size" in pair.remarks[-1].message
    assert (pair.engine.sqnr_db, pair.engine.cosine) == (None, pytest.approx(1))  # the same numbers
    lowest = top(image, turned=True)
    assert pair.engine.value == pair.reference.value == pytest.approx((lowest == label).mean())


def test_all_that_decides_the_answers_names_an_evaluation(place):
    cell = place.cells()["int8"]
    for item in cell.measure.ingredients:
        others = tuple(replace(one, value="other") if one is item else one for one in cell.measure.ingredients)
        changed = replace(cell, measure=replace(cell.measure, ingredients=others))
        assert (evaluation_key(changed, "e") == evaluation_key(cell, "e")) == (item.name == "protocol"), item.name
    assert {"device", "gate data", "metric", "measuring code", "recipe"} <= {
        item.name for item in cell.measure.ingredients
    }
    served = replace(cell, target=replace(cell.target, batch_sizes=(8,)))
    assert evaluation_key(served, "e") != evaluation_key(cell, "e")
    assert evaluation_key(cell, "another") != evaluation_key(cell, "e")


def test_rows_that_a_function_reads_elsewhere_are_read_anew_for_a_fresh_cell(place, top):
    """Calibration, engine and float model: its code, all that the cache knows of it, has stayed."""
    (place.folder / "rows_elsewhere.py").write_text(
        "import numpy\n"
        "def gate():\n    with numpy.load('gate.npz') as rows:\n        yield dict(rows)\n"
        "def calibration():\n    with numpy.load('calibration.npz') as rows:\n        yield dict(rows)\n"
    )
    data = {"label": "label"} | {role: {"fn": f"rows_elsewhere:{role}"} for role in ("calibration", "gate")}
    ranges = []
    for seed, fresh in ((5, ""), (6, "-x1")):
        image = small_rows(64, seed) * np.float32(seed)
        rows = {"gate": {"image": image, "label": top(image)}, "calibration": {"image": image}}
        cell = place.cells(rows=rows, pipeline={"data": data})["int8"]
        pair, _ = place.evaluated(cell, fresh=fresh)
        assert (pair.reference.value, pair.engine.value) == (1, 1), fresh
        plan = prepare_model(place.bench(cell, fresh=fresh)).plan
        ranges.append(next(one.high for one in plan.activations if one.tensor == "image"))
    assert ranges[1] > 1.1 * ranges[0]


def test_an_engine_that_computes_what_a_step_does_owns_its_numbers(place, monkeypatch):
    monkeypatch.setattr(FakeSession, "computes", "this", raising=False)
    monkeypatch.setattr("qpipe.execute.work.attributing.reference_computation", lambda _: "this")
    pair, _ = place.evaluated(place.cells(flip=0.5)["int8"])
    quantized, engine = ({step.name: step for step in pair.attribution.steps}[name] for name in ("quantized", "engine"))
    assert quantized.note == "what the engine runs"
    assert (
        (quantized.metric, quantized.sqnr_db) == (engine.metric, engine.sqnr_db) == (pair.engine.value, engine.sqnr_db)
    )
