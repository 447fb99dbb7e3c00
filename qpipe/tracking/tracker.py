"""The tracker: one pipeline run in MLflow, by explicit run ids and never by the thread's active run."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qpipe.records.result import CellResult, RunResult
from qpipe.records.target import Target
from qpipe.tracking.patience import address, calling

if TYPE_CHECKING:
    from mlflow import MlflowClient

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


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
class Tracker:
    """An MLflow that answered. All methods are idempotent: what is there already is adopted.

    Raises:
        TrackingError: from every method, when the server is lost or refuses.
    """

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

    def start(self, run_id: str, pipeline: str, params: Mapping[str, str], *, join: str | None = None) -> str:
        """The parent run of a pipeline run: found by its tag `qpipe.run_id`, or made below the run `join`."""
        from qpipe.tracking.runs import start_run

        with calling(self.uri, f"starting the run {run_id}"):
            return start_run(self, run_id, pipeline, params, join)

    def log_cell(
        self,
        parent: str,
        result: CellResult,
        *,
        target: Target | None = None,
        evidence: Path | None = None,
        dataset: Dataset | None = None,
        plots: tuple[Path, ...] = (),
    ) -> Logged:
        """The nested run of a cell with metrics, verdicts, evidence and plots, and the LoggedModel of its engine.

        `target` is needed for the engine to be servable without the pipeline; `evidence` is the evidence folder.
        """
        from qpipe.tracking.cells import log_cell

        with calling(self.uri, f"logging the cell {result.label}"):
            return log_cell(self, parent, result, target=target, evidence=evidence, dataset=dataset, plots=plots)

    def beat(self, parent: str) -> None:
        """Say that the process that owns this run is alive: who, where and when."""
        from qpipe.tracking.runs import heartbeat

        with calling(self.uri, "writing the heartbeat"):
            self.client.set_tag(parent, "qpipe.heartbeat", heartbeat())

    def finish(
        self,
        parent: str,
        status: RunStatus,
        *,
        result: RunResult | None = None,
        artifacts: tuple[Path, ...] = (),
    ) -> None:
        """End the parent run; `result` becomes run tags and `result.json`, `artifacts` are files beside it."""
        from qpipe.tracking.runs import finish_run

        with calling(self.uri, "finishing the run"):
            finish_run(self, parent, status, result, artifacts)


def joined_run() -> str | None:
    """The run that the user is in: `MLFLOW_RUN_ID`, or the thread's active run where mlflow is already imported."""
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        return run_id
    if "mlflow" not in sys.modules:
        return None
    import mlflow

    active = mlflow.active_run()
    return active.info.run_id if active else None


def owner() -> str:
    """`pid@host` of this process."""
    return f"{os.getpid()}@{socket.gethostname()}"
