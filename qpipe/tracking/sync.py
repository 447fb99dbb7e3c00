"""Log a finished run later: after `--offline`, or when the server was lost in mid-run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qpipe.errors import TrackingError
from qpipe.records.codec import decode, encode
from qpipe.records.result import RunResult
from qpipe.records.target import Target
from qpipe.report import NO_PLOTS, Plots
from qpipe.tracking.experiment import Dataset, Logged, run_status
from qpipe.tracking.tracker import Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledCell:
    """What a cell's result does not say itself."""

    key: str
    target: Target
    evidence: Path | None
    """Its evidence folder in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """Everything that MLflow is to know of a run: small, since engines and evidence stay in the store."""

    result: RunResult
    params: tuple[tuple[str, str], ...]
    cells: tuple[SpooledCell, ...]
    dataset: Dataset | None
    join: str | None = None


def write_spool(path: Path, spool: Spool) -> Path:
    """Keep a run for later, whole or not at all."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(encode(spool), encoding="utf-8")
    return scratch.replace(path)


def read_spool(path: Path) -> Spool:
    """Read what `write_spool` wrote.

    Raises:
        TrackingError: there is no such file, or it is none of ours.
    """
    try:
        return decode(Spool, path.read_bytes())
    except OSError as error:
        raise TrackingError(f"{path}: {error.strerror}", hint="only runs of this store can be logged later") from error
    except ValueError as error:
        raise TrackingError(f"{path} is not a run to be logged", hint="run the pipeline again: it is cached") from error


def sync(
    tracker: Tracker, spool: Spool, *, plots: Plots = NO_PLOTS, artifacts: tuple[Path, ...] = (), hold: str = ""
) -> tuple[str, dict[str, Logged]]:
    """Log a run from the beginning; what is in MLflow already stays as it is. Run id, and each cell by key.

    Raises:
        TrackingError: the server is lost again, or an engine or evidence folder is no longer there.
    """
    parent = tracker.start(spool.result.run_id, spool.result.pipeline, dict(spool.params), join=spool.join, hold=hold)
    files = {cell.key: cell for cell in spool.cells}
    logged = {}
    for result in spool.result.cells:
        cell = files[result.key]
        _check_there(cell.evidence, result.engine.path if result.engine else None)
        logged[result.key] = tracker.log_cell(
            parent,
            result,
            target=cell.target,
            evidence=cell.evidence,
            dataset=spool.dataset,
            plots=plots.of(result),
        )
    tracker.finish(parent, run_status(spool.result.exit_code), result=spool.result, artifacts=artifacts)
    return parent, logged


def _check_there(*folders: Path | None) -> None:
    for folder in folders:
        if folder is not None and not folder.is_dir():
            raise TrackingError(f"{folder} is no longer there", hint="run the pipeline again")
