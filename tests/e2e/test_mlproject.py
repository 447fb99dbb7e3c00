"""`mlflow run pipelines`: a project that trains, quantizes and promotes, each step a run of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_project_trains_quantizes_and_promotes(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", str(ROOT / "pipelines"), "--env-manager", "local"],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "digits/int8/cpu-local: PASS" in done.stdout + done.stderr

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    promoted = client.get_model_version_by_alias("digits-cpu-local", "champion")
    assert str(promoted.version) == "1"
    steps = {
        run.data.tags.get("mlflow.project.entryPoint"): run
        for run in client.search_runs([one.experiment_id for one in client.search_experiments()])
    }
    assert {"main", "train", "quantize", "promote"} <= set(steps)
    main = steps["main"].info.run_id
    assert {steps[name].data.tags["mlflow.parentRunId"] for name in ("train", "quantize", "promote")} == {main}
