"""The tracker: one pipeline run in MLflow, by explicit run ids and never by the thread's active run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qpipe.records.result import CellResult, Promoted, RunResult
from qpipe.records.target import Target
from qpipe.tracking.cells import log_cell
from qpipe.tracking.experiment import Dataset, Experiment, Logged, RunStatus
from qpipe.tracking.orphans import end_orphans
from qpipe.tracking.patience import BEGIN, PROMOTE, calling, patience
from qpipe.tracking.runs import finish_run, note_promoted, start_run
from qpipe.tracking.suitable import check_server


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracker(Experiment):
    """What a pipeline run does in its experiment. All methods are idempotent: what is there already is adopted.

    Raises:
        TrackingError: from every method, when the server is lost or refuses.
    """

    def check_server(self) -> None:
        """Make sure that a server can hold runs, as far as this user may ask it.

        Raises:
            UnreachableError: it is older than MLflow 3.
        """
        from mlflow.exceptions import MlflowException

        with patience(), suppress(MlflowException):
            if self.uri.startswith("http"):
                check_server(self.client, self.experiment_id, self.uri)

    def end_orphans(self, run_id: str, *, store: Path | None = None, join: str | None = None) -> tuple[str, ...]:
        """Mark the runs KILLED that killed processes left RUNNING, as far as that is known; a line about each.

        One of `run_id` is about to go on, so that its line says so. `store` is the folder where runs hold their files.
        """
        with calling(self.uri, "looking for runs that were killed", BEGIN):
            return end_orphans(self, run_id, store, join=join)

    def start(
        self, run_id: str, pipeline: str, params: Mapping[str, str], *, join: str | None = None, hold: str = ""
    ) -> str:
        """The parent run of a pipeline run: found by its tag `qpipe.run_id`, or made below the run `join`.

        `hold` is the tag of the file that this process holds in its store.
        """
        with calling(self.uri, f"starting the run {run_id}", BEGIN):
            return start_run(self, run_id, pipeline, params, join, hold=hold)

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

        `target` is needed for the engine to be servable without the pipeline; `evidence` is the evidence folder;
        `plots` are the files that show this cell.
        """
        with calling(self.uri, f"logging the cell {result.label}"):
            return log_cell(self, parent, result, target=target, evidence=evidence, dataset=dataset, plots=plots)

    def warm_up(self) -> None:
        """Import and open what logging and promoting need, for whoever has the time now rather than then."""
        import matplotlib.backends.backend_svg
        import mlflow.pyfunc

        assert mlflow.pyfunc and matplotlib.backends.backend_svg  # noqa: PT018  (imported for their own sake)
        with calling(self.uri, "opening the registry", BEGIN):
            self.client.search_registered_models(max_results=1)

    def finish(
        self,
        parent: str,
        status: RunStatus,
        *,
        result: RunResult | None = None,
        artifacts: tuple[Path, ...] = (),
    ) -> None:
        """End the parent run; `result` becomes run tags and `result.json`, `artifacts` are files beside it."""
        with calling(self.uri, "finishing the run"):
            finish_run(self, parent, status, result, artifacts)

    def note_promoted(self, parent: str, promoted: Promoted) -> None:
        """Say on the parent run what was promoted of it after it had ended."""
        with calling(self.uri, f"noting {promoted.model}@{promoted.alias}, which is moved, on its run", PROMOTE):
            note_promoted(self, parent, promoted)


def joined_run() -> str | None:
    """The run that the user is in: `MLFLOW_RUN_ID`, or the thread's active run where mlflow is already imported."""
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        return run_id
    if "mlflow" not in sys.modules:
        return None
    import mlflow

    active = mlflow.active_run()
    return active.info.run_id if active else None
