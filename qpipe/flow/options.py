"""How a run is asked for, beside what the pipeline file says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpipe.records.pipeline import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `qpipe run`."""

    targets: tuple[str, ...] = ()
    """Only these targets of the pipeline; empty takes all."""
    recipes: tuple[str, ...] = ()
    """Only these recipes; the float baseline always comes along."""
    fresh: bool = False
    """Measure again what is cached, try again what was refused; counts as a look."""
    offline: bool = False
    """Do not talk to MLflow: nothing is logged or promoted; `qpipe sync` does it later."""
    promote: bool = True
    profile: bool = True
    """Measure latency and memory; without it gates on speed are INCONCLUSIVE."""
    tracking_uri: str | None = None
    store: str | None = None
    workers: int | None = None
    """Children at a time; None takes the number of CPUs that this process may use, plus two."""
    executor: str = "local"
    """`local`, or `dask` for machines that a Dask scheduler knows."""
    scheduler: str | None = None
    """Address of the Dask scheduler, `tcp://HOST:8786` or `tls://HOST:8786`."""
    join: str | None = None
    """MLflow run to be the parent; None takes MLFLOW_RUN_ID or the active run."""

    def uri(self, pipeline: Pipeline) -> str | None:
        """Where this run of a pipeline is logged: as asked for here, else as the file says."""
        return self.tracking_uri or pipeline.tracking.uri
