"""For all tests: what one of them does to the process is not seen by the next."""

import os
import sys

import pytest

MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")


def mlflow_state() -> dict[str, str | None]:
    """MLflow's settings for the whole process: its variables, and what `set_tracking_uri` left."""
    state = {name: os.environ.get(name) for name in MLFLOW}
    utils = sys.modules.get("mlflow.tracking._tracking_service.utils")
    return state | {"set_tracking_uri": utils._tracking_uri if utils else None}


@pytest.fixture(autouse=True)
def mlflow_as_before():
    """No test, and nothing of ours that it calls, leaves MLflow pointed elsewhere."""
    before = mlflow_state()
    yield
    after = mlflow_state()
    if after != before:
        import mlflow

        mlflow.set_tracking_uri(before["set_tracking_uri"])
        for name in MLFLOW:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in MLFLOW if before[name] is not None})
    assert after == before
