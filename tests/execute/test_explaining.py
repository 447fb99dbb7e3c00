"""What `qpipe explain` is told: each step on the same rows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest
from onnx import helper

from qpipe.errors import DataError
from qpipe.execute.work.cell import prepare_model
from qpipe.execute.work.explaining import explanation_key, kernels
from qpipe.metrics import builtin_metrics
from qpipe.records.cell import Key
from qpipe.records.engine import NodeKernel, Placement
from qpipe.testing.models import small_rows, write_small_model

STEPS = ("float", "prepared", "float nodes", "float outputs", "quantized", "engine")


def test_an_engine_whose_metric_is_no_number_is_explained(place, monkeypatch):
    never = replace(builtin_metrics()[0], aggregate=lambda _: float("nan"))
    monkeypatch.setattr("qpipe.execute.work.explaining.find_metric", lambda *_: never)
    found = place.explained(place.cells()["int8"])
    assert {step.name: step.metric for step in found.steps} == dict.fromkeys(STEPS)


def test_an_explanation_has_the_engine_beside_the_float_model_on_the_same_rows(place):
    """The fake engine runs the float graph and turns each second answer round."""
    cell = place.cells(flip=0.5, noise=0.5)["int8"]
    found, (pair, _) = place.explained(cell), place.evaluated(cell)
    steps = {step.name: step for step in found.steps}
    assert tuple(steps) == STEPS
    assert (found.rows, found.role, found.metric) == (64, "gate", "accuracy")
    assert steps["float"].sqnr_db is None
    assert steps["prepared"].sqnr_db > steps["quantized"].sqnr_db > 20 > steps["engine"].sqnr_db
    assert steps["prepared"].metric == steps["float"].metric != steps["engine"].metric
    assert steps["engine"].sqnr_db == pytest.approx(pair.engine.sqnr_db)
    assert steps["engine"].metric == pytest.approx(pair.engine.value)
    assert found.layers
    assert {layer.kernel for layer in found.layers} == {""}


def second_output(model):
    """The logits turned round."""
    model.graph.node.append(helper.make_node("Neg", ["logits"], ["turned"]))
    model.graph.output.append(helper.make_tensor_value_info("turned", onnx.TensorProto.FLOAT, ["N", 3]))


@pytest.mark.parametrize(("times", "kind"), [(2, "other-rows"), (30, "other-inputs")])
def test_steps_are_judged_by_the_pipelines_output_and_ranges_by_the_same_rows(place, times, kind):
    image = times * small_rows(64, 2)
    session = onnxruntime.InferenceSession(write_small_model(place.folder).file.path)
    label = session.run(["logits"], {"image": image})[0].argmin(axis=1)
    data = {"label": "label", "output": "turned"} | {role: {"npz": f"{role}.npz"} for role in ("calibration", "gate")}
    rows = {"gate": {"image": image, "label": label}}
    found = place.explained(place.cells(rows=rows, pipeline={"data": data}, alter=second_output)["int8"])
    assert [step.metric for step in found.steps if step.name in {"float", "prepared", "engine"}] == [1, 1, 1]
    assert {one.kind for one in found.remarks} == {"rows", kind}


def test_an_engine_that_cannot_run_here_is_explained_without_its_step(place, monkeypatch):
    """On the rows that its emulator would run; what cannot be checked says so."""

    def refuse(*_):
        raise DataError("too many values")

    host = {"host": {"emulator": "qemu", "rows": 10}}
    cell = place.cells(run_unavailable="no board", target=host)["int8"]
    prepare_model(place.bench(cell))
    monkeypatch.setattr("qpipe.quant.calibration.calibrate.calibrate", refuse)
    found = place.explained(cell)
    assert found.rows == 10
    assert (found.steps[-1].name, found.steps[-1].note) == ("engine", "not measured: no board")
    assert ("not-checked", "too many values") in {(one.kind, one.message) for one in found.remarks}


@pytest.mark.parametrize("part", ["build", "measure", "metric", "rows"])
def test_an_explanation_is_of_one_engine_on_one_set_of_rows(place, part):
    cell, rows = place.cells()["int8"], SimpleNamespace(digest="rows")
    other = Key(digest="other", ingredients=())
    changed = cell if part == "rows" else replace(cell, **{part: "other" if part == "metric" else other})
    others = SimpleNamespace(digest="other") if part == "rows" else rows
    assert explanation_key(changed, others) != explanation_key(cell, rows)


def test_a_node_that_another_ones_kernel_does_has_that_kernel():
    """Also where something else of its name moves the tensor behind that kernel."""
    choices = (("conv", ""), ("relu", "conv"), ("clip", "gone"), ("packed", "conv"))
    plan = SimpleNamespace(nodes=[SimpleNamespace(node=node, absorbed_into=into) for node, into in choices])
    ran = (NodeKernel(node="conv", kernel="QLinearConv"), NodeKernel(node="packed", kernel="Reshape"))
    placement = Placement(integer=2, float=0, elsewhere=0, nodes=ran)
    assert kernels(plan, placement) == dict.fromkeys(("conv", "relu", "packed"), "QLinearConv")
    assert kernels(plan, None) == {}
