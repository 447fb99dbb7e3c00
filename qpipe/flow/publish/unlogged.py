"""Runs that MLflow has not seen, kept to be logged and promoted later: `--offline`, or a server lost in mid-run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, PromotionError
from qpipe.flow.exitcodes import run_code
from qpipe.flow.finished.report import draw, write_report
from qpipe.flow.finished.runs import KeptRun, keep_result, kept_uri, recall_run
from qpipe.flow.publish.log import promote_each, run_params
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import Evaluation
from qpipe.tracking import Dataset, Spool, SpooledCell, holding, joined_run, now, run_status

if TYPE_CHECKING:
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.records.result import CellResult, Promoted, RunResult
    from qpipe.store import Store

SPACE = "unlogged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlogged:
    """A run to be logged later; `spool` is None once that is done."""

    spool: Spool | None
    promote: bool = True
    at: str = ""
    """When the run was judged: UTC, ISO 8601; empty in stores of before."""


def keep_unlogged(workplace: Workplace, options: RunOptions, result: RunResult) -> None:
    """Keep what `sync_run` needs: small, since engines and evidence stay in the store."""
    store = workplace.store
    targets = {target.name: target for target in workplace.pipeline.targets}
    spool = Spool(
        result=replace(result, exit_code=run_code(result.cells, logged=True), warnings=(), promoted=()),
        params=tuple(run_params(workplace).items()),
        cells=tuple(
            SpooledCell(key=cell.key, target=targets[cell.target], evidence=_folder(cell, store))
            for cell in result.cells
        ),
        dataset=_dataset(workplace, result.cells),
        join=options.join or joined_run(),
    )
    store.remember(SPACE, result.run_id, encode(Unlogged(spool=spool, promote=options.promote, at=now())))


def forget_unlogged(store: Store, run_id: str) -> None:
    """MLflow has seen this run now."""
    if store.recall(SPACE, run_id) is not None:
        store.remember(SPACE, run_id, encode(Unlogged(spool=None)))


def sync_run(store: Store, run_id: str, *, tracking_uri: str | None) -> RunResult:
    """Log a kept run and promote what passed; the result with its MLflow run and without the old trouble.

    Raises:
        ConfigError: no such run, or one that MLflow has seen already.
        TrackingError: MLflow is lost again; the run stays kept.
        PromotionError: an alias was moved by somebody else, or to a younger engine; the run is logged then.
    """
    from qpipe.tracking import connect, sync

    kept = recall_run(store, run_id)
    found = kept.result.run_id
    text = store.recall(SPACE, found)
    waiting = None if text is None else decode(Unlogged, text)
    if waiting is None or waiting.spool is None:
        raise ConfigError(
            f"run {found} has nothing left to log", hint=f"it stands in MLflow as run {kept.result.mlflow_run_id}"
        )
    wanted = kept.pipeline.tracking
    tracker = connect(kept_uri(wanted, tracking_uri), wanted.experiment, folder=Path.cwd())
    with TemporaryDirectory() as scratch, holding(store.root) as hold:
        tracker.end_orphans(found, store=store.root, join=waiting.spool.join)
        plots = draw(waiting.spool.result.cells, store, Path(scratch))
        parent, logged = sync(tracker, waiting.spool, plots=plots, hold=hold.tag)
        result = replace(waiting.spool.result, mlflow_run_id=parent)
        promoted: list[Promoted] = []
        refused: PromotionError | None = None
        if waiting.promote and kept.pipeline.promote is not None:
            models = {key: one.model_id for key, one in logged.items()}
            try:
                promote_each(tracker, result.cells, kept.pipeline.promote, models, promoted, judged_at=waiting.at)
            except PromotionError as error:  # the run is logged all the same
                refused = error
        final = replace(result, promoted=tuple(promoted))
        tracker.finish(
            parent,
            run_status(final.exit_code),
            result=final,
            artifacts=write_report(final, store, Path(scratch), plots),
        )
        hold.end()
    keep_result(store, KeptRun(pipeline=kept.pipeline, result=final))
    if refused is not None:
        raise refused
    forget_unlogged(store, found)
    return final


def _folder(cell: CellResult, store: Store) -> Path | None:
    return store.folder(cell.evidence.digest) if cell.evidence else None


def _dataset(workplace: Workplace, cells: tuple[CellResult, ...]) -> Dataset | None:
    """The gate rows as the evidence names them."""
    spec = workplace.pipeline.data.role("gate")
    for cell in cells:
        evaluation = cell.evidence.evaluation if cell.evidence else None
        if isinstance(evaluation, Evaluation) and spec is not None:
            return Dataset(
                name=f"{workplace.pipeline.name}-gate",
                digest=evaluation.data_digest,
                source=str(spec.npz or spec.fn),
                rows=evaluation.rows,
            )
    return None
