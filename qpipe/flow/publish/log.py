"""Log a run to MLflow and promote what passed. Losing MLflow in mid-run costs the log, never the results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qpipe.errors import Interrupted, PromotionError, QpipeError, TrackingError
from qpipe.flow.cells.claims import promotable, promoted_name
from qpipe.flow.finished.report import write_report
from qpipe.flow.finished.runs import find_run
from qpipe.flow.publish.waiting import answered
from qpipe.flow.stopping import heed

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence

    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.records.pipeline import PromoteSpec, SearchSpec
    from qpipe.records.result import CellResult, Promoted, RunResult
    from qpipe.report import Plots
    from qpipe.tracking import Dataset, Tracker

OFFLINE = "offline: nothing was logged or promoted; `qpipe sync` does it later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What of a run stands in MLflow."""

    mlflow_run_id: str | None
    promoted: tuple[Promoted, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: str | None = None
    """Why results could not be logged or promoted, or None."""
    lost: bool = False
    """Whether that is because MLflow does not answer any more."""


def check_reachable(workplace: Workplace, options: RunOptions) -> None:
    """Knock where MLflow shall be, without importing it.

    Raises:
        UnreachableError: nobody answers, or the database cannot be written (exit code 2).
        ConfigError: a URI that MLflow cannot use.
    """
    from qpipe.tracking import knock

    knock(options.uri(workplace.pipeline), folder=Path.cwd())


def open_tracker(workplace: Workplace, options: RunOptions) -> Tracker | None:
    """MLflow with the experiment of the pipeline; None for an offline run.

    Raises:
        UnreachableError: no answer in time (exit code 2).
    """
    if options.offline:
        return None
    from qpipe.tracking import connect

    return connect(options.uri(workplace.pipeline), workplace.pipeline.tracking.experiment, folder=Path.cwd())


def run_params(workplace: Workplace) -> dict[str, str]:
    """What the parent run says of the pipeline."""
    return {
        "pipeline": workplace.pipeline.name,
        "models": ", ".join(f"{model.name} {model.digest[:12]}" for model in workplace.models),
        "targets": ", ".join(target.name for target in workplace.pipeline.targets),
        "recipes": ", ".join(recipe.name for recipe in workplace.pipeline.recipes),
        "gates": ", ".join(gate.name for gate in workplace.pipeline.gates),
        **({"search": asked_for(workplace.pipeline.search)} if workplace.pipeline.search else {}),
    }


def asked_for(search: SearchSpec) -> str:
    """What a search looks for and what it may spend, e.g. `latency: 20 trials, 5 minutes`."""
    budget = ((search.trials, "trials"), (search.minutes, "minutes"))
    return f"{search.objective}: {', '.join(f'{most:g} {unit}' for most, unit in budget if most is not None)}"


def publish(
    tracker: Tracker | None,
    parent: str | None,
    workplace: Workplace,
    results: Sequence[CellResult],
    *,
    plots: Plots,
    promote: bool,
    stop: threading.Event,
) -> Published:
    """Log every cell, then promote those that passed; what goes wrong is said, not raised.

    Raises:
        Interrupted: `stop` was set before anything was promoted.
    """
    if tracker is None or parent is None:
        return Published(mlflow_run_id=None, warnings=(OFFLINE,))
    promoted: list[Promoted] = []

    def work() -> None:
        models = _log_cells(tracker, parent, workplace, results, plots=plots, stop=stop)
        if promote and workplace.pipeline.promote is not None:
            heed(stop)
            promote_each(tracker, results, workplace.pipeline.promote, models, promoted)

    try:
        answered(work, stop)
    except Interrupted:
        raise
    except QpipeError as error:
        problem = f"{error.message} ({error.hint})" if error.hint else error.message
        return Published(
            mlflow_run_id=parent,
            promoted=tuple(promoted),
            warnings=(*tracker.warnings, problem),
            problem=problem,
            lost=isinstance(error, TrackingError),
        )
    return Published(mlflow_run_id=parent, promoted=tuple(promoted), warnings=tracker.warnings)


def promote_each(
    tracker: Tracker,
    results: Sequence[CellResult],
    spec: PromoteSpec,
    models: Mapping[str, str | None],
    promoted: list[Promoted],
    *,
    judged_at: str = "",
) -> None:
    """Add what is promoted to the list, which holds although MLflow is lost at a later one.

    `models` are LoggedModels by cell key. With `judged_at` none takes the place of what was promoted since then.

    Raises:
        PromotionError: the first that had no right to it; it stops nobody else.
        TrackingError: MLflow is lost.
    """
    refused: list[PromotionError] = []
    for one in promotable(results, spec):
        try:
            promoted.append(_promote(tracker, one, spec, models.get(one.key), judged_at))
        except PromotionError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def finish(
    tracker: Tracker | None,
    parent: str | None,
    workplace: Workplace,
    result: RunResult,
    *,
    plots: Plots,
    stop: threading.Event,
) -> None:
    """Close the parent run with the tables, the report and the JSON of the whole run.

    A run that was finished before with the same results keeps the report that it has.

    Raises:
        TrackingError: MLflow is lost.
        Interrupted: `stop` was set, and MLflow says nothing: the same command finishes the run.
    """
    if tracker is None or parent is None:
        return
    from qpipe.tracking import run_status

    with TemporaryDirectory() as scratch:
        files = () if _reported(workplace, result) else write_report(result, workplace.store, Path(scratch), plots)
        status = run_status(result.exit_code)
        answered(lambda: tracker.finish(parent, status, result=result, artifacts=files), stop)


def _reported(workplace: Workplace, result: RunResult) -> bool:
    """Whether this very run was logged before, to the same MLflow run, with the same evidence and verdicts."""
    before = find_run(workplace.store, result.run_id)
    return before is not None and _essence(before.result) == _essence(result)


def _essence(result: RunResult) -> tuple[object, ...]:
    cells = tuple((one.key, one.evidence and one.evidence.digest, one.verdicts) for one in result.cells)
    return (result.mlflow_run_id, result.exit_code, cells, result.promoted)


def _log_cells(
    tracker: Tracker,
    parent: str,
    workplace: Workplace,
    results: Sequence[CellResult],
    *,
    plots: Plots,
    stop: threading.Event,
) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    targets = {target.name: target for target in workplace.pipeline.targets}
    dataset = _dataset(workplace)
    for result in results:
        heed(stop)
        folder = workplace.store.folder(result.evidence.digest) if result.evidence else None
        logged = tracker.log_cell(
            parent,
            result,
            target=targets[result.target],
            evidence=folder,
            dataset=dataset,
            plots=plots.of(result),
        )
        found[result.key] = logged.model_id
    return found


def _dataset(workplace: Workplace) -> Dataset:
    from qpipe.data import open_role
    from qpipe.tracking import Dataset

    spec = workplace.pipeline.data.role("gate")
    role = open_role(workplace.pipeline.data, "gate", workplace.models[0].signature)
    source = str(spec.npz or spec.fn) if spec else ""
    return Dataset(name=f"{workplace.pipeline.name}-gate", digest=role.digest, source=source, rows=role.rows)


def _promote(tracker: Tracker, result: CellResult, spec: PromoteSpec, model_id: str | None, judged_at: str) -> Promoted:
    from qpipe.tracking import promote

    name = promoted_name(spec, result.model, result.recipe, result.target)
    return promote(tracker, result, model_name=name, alias=spec.alias, model_id=model_id, judged_at=judged_at)
