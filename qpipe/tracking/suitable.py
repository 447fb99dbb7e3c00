"""Whether an MLflow that answers can hold a run, which is asked before there is any work to lose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, UnreachableError
from qpipe.tracking.patience import address

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_ADDRESS = "`tracking: uri:` or MLFLOW_TRACKING_URI"


def check_suitable(client: MlflowClient, experiment: Experiment, uri: str) -> None:
    """A run needs logged models, and artifacts that can be written from here.

    Raises:
        UnreachableError: what answers is no MLflow, or one of version 2, which has no logged models (exit code 2).
        ConfigError: the database of a server that alone can write the artifacts of this experiment.
    """
    if uri.startswith("http"):
        check_server(client, experiment.experiment_id, uri)
    elif str(experiment.artifact_location).startswith("mlflow-artifacts:"):
        raise ConfigError(
            f"the experiment {experiment.name!r} at {address(uri)} has its artifacts behind an MLflow server",
            hint=f"name that server, http://HOST:PORT, with {_ADDRESS}, or another experiment",
        )


def check_server(client: MlflowClient, experiment_id: str, uri: str) -> None:
    """What answers at a URI has logged models.

    Raises:
        UnreachableError: as `check_suitable`.
        MlflowException: it does not let this user ask, or is lost.
    """
    from mlflow.exceptions import MlflowException

    if not experiment_id:
        raise UnreachableError(
            f"what answers at {address(uri)} is no MLflow: it tells nothing of an experiment",
            hint=f"correct {_ADDRESS}, or run with --offline and `qpipe sync` later",
        )
    try:
        client.search_logged_models([experiment_id], max_results=1)
    except MlflowException as error:
        if error.error_code != "ENDPOINT_NOT_FOUND":
            raise
        raise UnreachableError(
            f"the server at {address(uri)} is older than MLflow 3: it has no logged models, and engines are such",
            hint="update it, or run with --offline and `qpipe sync` later, to one that has them",
        ) from error
