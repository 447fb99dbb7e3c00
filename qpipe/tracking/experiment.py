"""An experiment of an MLflow that answered, and the words of what is logged there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qpipe.errors import ConfigError
from qpipe.tracking.patience import address

if TYPE_CHECKING:
    from mlflow import MlflowClient

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
SUCCEEDED = (0, 3, 4)
"""Exit codes of runs that did all their work, whatever the gates said."""


def run_status(exit_code: int) -> RunStatus:
    """What a run that ended with this code is to MLflow."""
    return "FINISHED" if exit_code in SUCCEEDED else "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The gate rows, to which metrics are bound."""

    name: str
    digest: str
    source: str
    """Where the rows come from: a path or `module:function`."""
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """Where a cell stands in MLflow."""

    run_id: str
    model_id: str | None
    """The LoggedModel of its engine, or None for a cell without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Where a pipeline run is logged: what every call to MLflow needs."""

    uri: str
    """As resolved; it may hold a password."""
    experiment: str
    experiment_id: str
    client: MlflowClient
    warnings: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The URI as it is printed, so that nobody searches for their runs."""
        return address(self.uri)

    @property
    def is_local(self) -> bool:
        """Whether this process opens a database on this machine itself, so that no request is ever tried twice."""
        return self.uri.startswith("sqlite:///")

    def experiment_of(self, run_id: str) -> str:
        """The experiment of a run that is to be joined.

        Raises:
            ConfigError: it is not there.
        """
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_run(run_id).info.experiment_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise ConfigError(
                f"the run {run_id} to be joined is not at {self.address}",
                hint="MLFLOW_RUN_ID and the tracking uri must be of one server; unset it to make a run of its own",
            ) from error
