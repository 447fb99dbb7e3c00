"""The main job on the digits: the first run works, the second finds everything done."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from pydantic import TypeAdapter

from qpipe.flow.publish import connection, log
from qpipe.report.shapes import RunShape

PROMISED = {
    "": {"run_id", "mlflow_run_id", "pipeline", "exit_code", "warnings", "cells", "promoted"},
    "cell": {
        *("key", "model", "recipe", "target", "cached", "status", "reason", "hint", "verdict", "gates"),
        *("engine", "metrics", "profile", "placement", "facts"),
    },
    "gate": {"verdict", "observed", "low", "high", "limit", "n", "alpha", "kind", "reason", "advice", "slices"},
    "engine": {"digest", "path", "files", "size_bytes"},
    "metrics": {"reference", "quantized", "engine"},
    "profile": {"kind", "batch", "peak_rss_bytes"},
    "batch": {"latency_ms", "baseline_ms", "ratio"},
    "ratio": {"median", "low", "high"},
    "placement": {"integer", "float", "elsewhere", "notes"},
    "promoted": {"model", "version", "alias", "engine"},
}
"""The keys of `--json` that are a promise, spelled out here so that no refactoring can change both sides."""


def client(folder) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def counts(folder) -> tuple[int, int, int]:
    """Runs, LoggedModels and model versions."""
    mlflow = client(folder)
    experiments = [one.experiment_id for one in mlflow.search_experiments()]
    return (
        len(mlflow.search_runs(experiments)),
        len(mlflow.search_logged_models(experiments)),
        len(mlflow.search_model_versions()),
    )


def cell(document: dict, recipe: str) -> dict:
    return next(one for one in document["cells"] if one["recipe"] == recipe)


def test_the_first_run_passes_and_promotes(first_run):
    _, found = first_run
    assert found["exit_code"] == 0
    int8 = cell(found, "int8")
    assert (int8["verdict"], int8["status"], int8["cached"]) == ("PASS", "ok", False)
    assert cell(found, "none")["verdict"] is None
    (promoted,) = found["promoted"]
    assert (promoted["model"], promoted["version"], promoted["alias"]) == ("digits-cpu-local", "1", "champion")
    assert promoted["engine"] == int8["engine"]["digest"]


def test_the_json_has_the_promised_keys(first_run):
    _, found = first_run
    TypeAdapter(RunShape).validate_python(json.loads(json.dumps(found)))
    int8 = cell(found, "int8")
    batch = int8["profile"]["batch"]["1"]
    parts = {
        "": found,
        "cell": int8,
        "gate": int8["gates"]["quality"],
        "engine": int8["engine"],
        "metrics": int8["metrics"],
        "profile": int8["profile"],
        "batch": batch,
        "ratio": batch["ratio"],
        "placement": int8["placement"],
        "promoted": found["promoted"][0],
    }
    for name, part in parts.items():
        assert PROMISED[name] <= set(part), name
    assert set(batch["latency_ms"]) == set(batch["baseline_ms"]) == {"p50", "p90", "p95", "p99"}


def test_the_schema_command_describes_that_json(first_run, qpipe_in):
    folder, found = first_run
    schema = qpipe_in(folder, "schema").json
    assert schema["$schema"].endswith("2020-12/schema")
    shapes = schema["$defs"]
    assert set(shapes["RunShape"]["required"]) == set(found)
    assert set(shapes["CellShape"]["required"]) == set(found["cells"][0])
    assert set(shapes["FailureShape"]["properties"]) == {"error"}
    assert schema["anyOf"] == [{"$ref": f"#/$defs/{name}Shape"} for name in ("Run", "Failure", "Fleet")]


def test_the_verdict_is_that_of_an_independent_computation(first_run, digits):
    """Accuracy of both graphs, recomputed with onnxruntime and numpy alone."""
    import onnxruntime

    _, found = first_run
    rows = np.load(digits / "gate.npz")
    image = (rows["image"].astype(np.float32) * np.float32(0.0625) - np.float32(0.5)) / np.float32(0.25)
    int8 = cell(found, "int8")
    shares = {}
    for name, path in (
        ("reference", digits / "digits.onnx"),
        ("engine", f"{int8['engine']['path']}/{int8['engine']['files'][0]}"),
    ):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {session.get_inputs()[0].name: image})
        shares[name] = float((np.asarray(logits).argmax(1) == rows["label"]).mean())
        assert int8["metrics"][name]["accuracy"] == pytest.approx(shares[name], abs=0.5 / len(image))
    assert int8["gates"]["quality"]["observed"] == pytest.approx(shares["engine"] - shares["reference"], abs=1e-3)
    assert int8["gates"]["quality"]["n"] == len(image)


def test_what_stands_in_mlflow(first_run):
    folder, found = first_run
    mlflow = client(folder)
    parent = mlflow.get_run(found["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["qpipe.run_id"] == found["run_id"]
    nested = mlflow.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert len(nested) == 2
    version = mlflow.get_model_version_by_alias("digits-cpu-local", "champion")
    assert str(version.version) == "1"
    logged = mlflow.get_logged_model(version.source.removeprefix("models:/"))
    assert {metric.key: metric.value for metric in logged.metrics}["accuracy"] == pytest.approx(
        cell(found, "int8")["metrics"]["engine"]["accuracy"]
    )
    names = {one.path for one in mlflow.list_artifacts(found["mlflow_run_id"])}
    assert {"result.json", "report.html"} <= names


def test_the_second_run_starts_no_child_and_makes_nothing_new(first_run, qpipe_in, monkeypatch):
    folder, found = first_run
    before = counts(folder)
    monkeypatch.setattr("qpipe.execute.children.guard.spawn", lambda *_, **__: pytest.fail("a child was started"))
    monkeypatch.setattr(
        "qpipe.execute.children.nursery.start_program", lambda *_, **__: pytest.fail("a seed was started")
    )
    again = qpipe_in(folder, "run", "digits.yaml", "--json")
    assert again.code == 0, again.err
    assert again.err.count("  cached  ") == 2  # a log of CI shows how far it is, while stdout waits for its object
    assert [one["cached"] for one in again.json["cells"]] == [True, True]
    assert (again.json["run_id"], again.json["mlflow_run_id"]) == (found["run_id"], found["mlflow_run_id"])
    assert again.json["promoted"] == found["promoted"]
    assert [one["gates"] for one in again.json["cells"]] == [one["gates"] for one in found["cells"]]
    assert counts(folder) == before == (4, 2, 1)  # parent, two cells, ledger


def test_mlflow_is_not_opened_while_nobody_wrote_to_it_and_is_asked_again_when_somebody_did(first_run, qpipe_in):
    folder, found = first_run
    assert qpipe_in(folder, "run", "digits.yaml", "--json").code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qpipe.flow.publish.connection.open_tracker", lambda *_: pytest.fail("MLflow was opened"))
        again = qpipe_in(folder, "run", "digits.yaml", "--json")
        assert (again.code, again.json["mlflow_run_id"]) == (0, found["mlflow_run_id"])
        assert again.json["promoted"] == found["promoted"]
    mlflow = client(folder)
    mlflow.set_tag(found["mlflow_run_id"], "looked", "by somebody")
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "open_tracker", lambda *given: opened.append(given) or log.open_tracker(*given))
        assert qpipe_in(folder, "run", "digits.yaml", "--json").code == 0
    assert len(opened) == 1
    mlflow.delete_tag(found["mlflow_run_id"], "looked")


def plan(qpipe_in, folder, *args) -> dict[str, dict]:
    said = qpipe_in(folder, "plan", *args, "--json")
    assert said.code == 0, said.err
    return {one["cell"]: one for one in said.json["cells"]}


def changed_copy(folder, name, change) -> str:
    """Another pipeline file beside the first; paths and store stay the same."""
    document = yaml.safe_load((folder / "digits.yaml").read_text())
    change(document)
    (folder / name).write_text(yaml.safe_dump(document))
    return name


def test_plan_says_cached(first_run, qpipe_in):
    folder, found = first_run
    cells = plan(qpipe_in, folder, "digits.yaml")
    assert {one["note"] for one in cells.values()} == {"cached"}
    assert {one["measure"] for one in cells.values()} == {one["key"] for one in found["cells"]}


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("margin", lambda d: d["gates"]["quality"].update(margin=0.02), {"none": (), "int8": ()}),
        (
            "calibration",
            lambda d: d["data"]["calibration"].update(samples=100),
            {"none": (), "int8": ("calibration data",)},
        ),
        (
            "threads",
            lambda d: d.update(targets=[{"name": "cpu-local-2", "base": "cpu-local", "threads": 2}]),
            {"none": None, "int8": None},
        ),
        (
            "preprocess",
            lambda d: d["data"]["preprocess"]["image"].update(scale=0.06),
            {"none": ("gate data",), "int8": ("calibration data", "gate data")},
        ),
        ("metric", lambda d: (d.update(metric="macro-f1"), d["gates"]["quality"].pop("metric")), {"int8": ("metric",)}),
        ("protocol", lambda d: d["profile"].update(processes=3), {"none": ("protocol",), "int8": ("protocol",)}),
    ],
)
def test_plan_says_which_ingredient_changed(first_run, qpipe_in, name, change, expected):
    folder, _ = first_run
    file = changed_copy(folder, f"changed-{name}.yaml", change)
    try:
        cells = plan(qpipe_in, folder, file)
    finally:
        (folder / file).unlink()
    for recipe, ingredients in expected.items():
        one = next(line for label, line in cells.items() if f"/{recipe}/" in label)
        if ingredients is None:
            assert (one["note"], one["cached"]) == ("first run", False)
        elif ingredients:
            assert tuple(one["changed"]) == ingredients
            assert one["note"] == "changed: " + ", ".join(ingredients)
        else:
            assert one["note"] == "cached"


def test_plan_reads_and_writes_nothing(digits, tmp_path, qpipe_in):
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("digits.yaml", "digits.onnx", "calibration.npz", "search.npz", "gate.npz"):
        shutil.copy(digits / name, folder)
    before = {path.name for path in folder.iterdir()}
    cells = plan(qpipe_in, folder, "digits.yaml")
    assert {one["note"] for one in cells.values()} == {"first run"}
    assert {path.name for path in folder.iterdir()} == before


def test_the_plan_fits_on_a_narrow_terminal(first_run, qpipe_in):
    folder, _ = first_run
    said = qpipe_in(folder, "plan", "digits.yaml")
    assert "digits/int8/cpu-local" in said.out
