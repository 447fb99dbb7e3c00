"""`qpipe.run`, `qpipe.step` and `qpipe.load` as a user's own script calls them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

import qpipe
from qpipe.errors import ConfigError, DataError, EngineError, ModelError
from qpipe.flow.options import RunOptions

QUIET = RunOptions(profile=False)
DATA = {"label": "label", "calibration": {"npz": "calibration.npz"}, "gate": {"npz": "gate.npz"}}
GATES = {"quality": {"margin": 0.05}, "finite": {}}


def step(**changes: object):
    given = {
        "model_uri": "small.onnx",
        "data": DATA,
        "gates": GATES,
        "task": "classification",
        "name": "small",
        "options": QUIET,
        **changes,
    }
    return qpipe.step(**given)


def test_step_nests_under_the_active_run_and_under_mlflow_run_id(place, monkeypatch, caplog):
    """Twice the same work: once as the step of a run in this thread, once as one that a parent process began."""
    import mlflow

    monkeypatch.chdir(place)
    uri = f"sqlite:///{place}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    caplog.set_level("INFO", logger="qpipe")
    client = MlflowClient(uri)
    experiment = client.create_experiment("mine", artifact_location=(place / "mine").as_uri())
    with mlflow.start_run(experiment_id=experiment) as mine:
        result = step(promote={"model": "{model}-{target}", "alias": "champion"})
        assert mlflow.active_run().info.run_id == mine.info.run_id
    assert result.exit_code == 0, result.warnings
    assert "done  small/int8/cpu-local" in [one.getMessage() for one in caplog.records if one.levelname == "INFO"]
    logged = client.get_run(result.mlflow_run_id)
    assert logged.data.tags["mlflow.parentRunId"] == mine.info.run_id
    assert logged.info.experiment_id == experiment
    assert client.get_run(mine.info.run_id).info.status == "FINISHED"
    assert [(one.model, one.version) for one in result.promoted] == [("small-cpu-local", "1")]

    other = client.create_run(experiment)
    monkeypatch.setenv("MLFLOW_RUN_ID", other.info.run_id)
    again = step(name="small", gates={"quality": {"margin": 0.06}, "finite": {}})
    assert all(cell.cached for cell in again.cells)
    assert "margin was 0.05" in str(again.warnings)
    assert {one.getMessage() for one in caplog.records if one.levelname == "WARNING"} >= set(again.warnings)
    nested = client.get_run(again.mlflow_run_id)
    assert nested.data.tags["mlflow.parentRunId"] == other.info.run_id
    assert client.get_run(other.info.run_id).info.status == "RUNNING"  # it belongs to whoever began it

    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    with pytest.raises(ConfigError, match="is not at sqlite"):
        step(gates={"quality": {"margin": 0.07}})


def test_run_gives_the_result_and_load_opens_its_engine(place, make, monkeypatch):
    monkeypatch.chdir(place)
    make.pipeline(place, gates={"quality": {"margin": 0.05}, "size": {"at_most_ratio": 0.01}})
    result = qpipe.run("small.yaml", QUIET)
    assert result.exit_code == 3  # a failed gate is a result, not an exception
    int8 = next(cell for cell in result.cells if cell.recipe == "int8")
    assert (int8.decision, int8.status) == ("FAIL", "ok")
    rows = np.load("gate.npz")
    session = qpipe.load(int8.engine.path)
    outputs = session.run({"image": rows["image"]})
    session.close()
    accuracy = float((outputs["logits"].argmax(1) == rows["label"]).mean())
    assert accuracy == pytest.approx(int8.evidence.evaluation.value)

    copy = place / "copy"
    shutil.copytree(int8.engine.path, copy)
    file = copy / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(EngineError, match="expected sha256"):
        qpipe.load(copy)
    with pytest.raises(EngineError):
        qpipe.load(place / "nothing-here")


def test_what_is_wrong_is_an_exception_with_a_code(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(ModelError, match="no such model file") as caught:
        step(model_uri="smal.onnx")
    assert caught.value.code == 2
    with pytest.raises(ConfigError, match="did you mean 'quality'"):
        step(gates={"qualiti": {"margin": 0.05}})
    with pytest.raises(ConfigError, match="no such pipeline file"):
        qpipe.run("missing.yaml")
    assert not (place / ".qpipe").exists()


def test_importing_qpipe_is_light(tmp_path):
    import subprocess
    import sys

    code = "import qpipe, sys; print([n for n in ('mlflow', 'numpy', 'onnx', 'pydantic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        qpipe.runn  # noqa: B018
    assert set(qpipe.__all__) == {"__version__", "load", "run", "step"}


def test_the_pipeline_may_lie_elsewhere(place, make, monkeypatch, tmp_path):
    """Paths of the file start at the file; store and database at the working folder."""
    make.pipeline(place)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = qpipe.run(Path("..") / "place" / "small.yaml", RunOptions(profile=False, offline=True))
    assert result.exit_code == 0
    assert {path.name for path in elsewhere.iterdir()} == {".qpipe"}
    assert not (place / ".qpipe").exists()


def test_what_a_script_holds_may_stand_in_a_step(place, monkeypatch):
    """Paths and numbers of NumPy are text and numbers; what no file can hold is named, and so is a wrong key."""
    monkeypatch.chdir(place)
    data = {**DATA, "gate": {"npz": place / "nowhere.npz"}}
    with pytest.raises(DataError, match=r"nowhere\.npz: no such data file"):
        step(data=data, gates={"quality": {"margin": np.float64(0.05)}, "size": {"at_most_mib": np.int64(3)}})
    with pytest.raises(ConfigError, match=r"^qpipe\.step: \{1, 2\} is set, which no pipeline file can hold"):
        step(gates={"quality": {"margin": {1, 2}}})
    with pytest.raises(ConfigError, match=r"^qpipe\.step: name: "):
        step(name="a/b")
