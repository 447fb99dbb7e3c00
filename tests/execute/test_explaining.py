"""What `qpipe explain` is told: each step on the same rows."""

from __future__ import annotations

from dataclasses import replace

from qpipe.metrics import builtin_metrics

STEPS = ("float", "prepared", "float nodes", "float outputs", "quantized", "engine")


def test_an_engine_whose_metric_is_no_number_is_explained(place, monkeypatch):
    never = replace(builtin_metrics()[0], aggregate=lambda _: float("nan"))
    monkeypatch.setattr("qpipe.execute.work.explaining.find_metric", lambda *_: never)
    found = place.explained(place.cells()["int8"])
    assert {step.name: step.metric for step in found.steps} == dict.fromkeys(STEPS)


def test_an_explanation_has_the_engine_beside_the_float_model_on_the_same_rows(place):
    """The fake engine runs the float graph and turns each second answer round."""
    found = place.explained(place.cells(flip=0.5)["int8"])
    steps = {step.name: step for step in found.steps}
    assert tuple(steps) == STEPS
    assert (found.rows, found.role, found.metric) == (64, "gate", "accuracy")
    assert steps["float"].sqnr_db is None
    assert steps["prepared"].sqnr_db > steps["quantized"].sqnr_db > 20 > steps["engine"].sqnr_db
    assert steps["prepared"].metric == steps["float"].metric != steps["engine"].metric
    assert found.layers
    assert {layer.kernel for layer in found.layers} == {""}
