"""The three entry points of this MLproject, one after the other; each is a nested run of this one."""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow

PROJECT = str(Path(__file__).parent)


def run(entry_point: str, **parameters: str) -> str:
    """Run one entry point to its end; returns its MLflow run id. A step that fails ends the whole project."""
    done = mlflow.projects.run(PROJECT, entry_point, parameters=parameters, env_manager="local")
    return str(done.run_id)


def tag(run_id: str, name: str) -> str:
    """What a step left for the next one."""
    return str(mlflow.MlflowClient().get_run(run_id).data.tags[name])


if __name__ == "__main__":
    with mlflow.start_run():  # this project's own; runs that begin in it are nested
        trained = run("train", epochs=sys.argv[1])
        quantized = run("quantize", model_uri=tag(trained, "model_uri"))
        run("promote", run_id=tag(quantized, "qpipe_run_id"))
