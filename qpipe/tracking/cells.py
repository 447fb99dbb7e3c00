"""The nested run of one cell."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.records.codec import encode
from qpipe.records.result import CellResult
from qpipe.records.target import Target
from qpipe.report.document import gates_document
from qpipe.report.table import cell_text
from qpipe.tracking.experiment import Dataset, Experiment, Logged
from qpipe.tracking.figures import figures
from qpipe.tracking.models import log_engine
from qpipe.tracking.runs import cut, find_or_create, turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import DatasetInput, Run

COMPLETE = "qpipe.complete"
"""Tag of a cell run that is wholly logged; its value is the digest of the result."""
DATASET_DIGEST = 36
"""MLflow's limit on the digest of a dataset."""
PLOTS = "plots"
"""Folder of a cell's plots among the artifacts of its run."""


def log_cell(
    where: Experiment,
    parent: str,
    result: CellResult,
    *,
    target: Target | None,
    evidence: Path | None,
    dataset: Dataset | None,
    plots: tuple[Path, ...],
) -> Logged:
    """Log one cell; a cell that is already there with this very result costs three calls.

    Two processes with one run take turns: MLflow refuses the same figure of a model at the same moment.
    """
    with turn(where, {"qpipe.cell_key": result.key, "logged below": parent}):
        run = _cell_run(where, parent, result)
        model_id = None
        if result.engine is not None:
            model_id = log_engine(where, run, result.engine, target)
        if run.data.tags.get(COMPLETE) == _content(result, model_id):
            return Logged(run_id=run.info.run_id, model_id=model_id)
        if dataset is not None:
            where.client.log_inputs(run.info.run_id, datasets=[_dataset_input(dataset)])
        text = cell_text(result)
        _log_files(where, run.info.run_id, result, text, evidence=evidence, plots=plots)
        _log_batch(where, run, result, model_id, dataset, note=_note(text, run.info.experiment_id, parent, plots))
        where.client.set_terminated(run.info.run_id, status="FINISHED" if result.status == "ok" else "FAILED")
        return Logged(run_id=run.info.run_id, model_id=model_id)


def _content(result: CellResult, model_id: str | None) -> str:
    """Names what was logged; whether it came from the cache this time is not part of it.

    The figures are bound to the logged model: one that was deleted and made anew has none yet.
    """
    verdicts = (result.evidence, result.verdicts, result.attribution)
    content = (model_id, result.key, result.status, result.reason, *verdicts)
    # The records are frozen and print all of themselves, NaN included, which canonical JSON refuses.
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _cell_run(where: Experiment, parent: str, result: CellResult) -> Run:
    experiment = where.client.get_run(parent).info.experiment_id
    identity = {
        "qpipe.cell_key": result.key,
        "mlflow.parentRunId": parent,
        "qpipe.model": result.model,  # recipes of the same stages share a key, and so do copies of a model
        "qpipe.recipe": result.recipe,
        "qpipe.target": result.target,
    }
    return find_or_create(where, experiment, identity, {**identity, "qpipe.role": "cell"}, result.label)


def _dataset_input(dataset: Dataset) -> DatasetInput:
    from mlflow.entities import Dataset as MlflowDataset
    from mlflow.entities import DatasetInput, InputTag

    entity = MlflowDataset(
        name=dataset.name,
        digest=dataset.digest[:DATASET_DIGEST],
        source_type="qpipe",
        source=encode({"source": dataset.source, "sha256": dataset.digest}),
        profile=encode({"rows": dataset.rows}),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "gate")])


def _log_files(
    where: Experiment,
    run_id: str,
    result: CellResult,
    text: str,
    *,
    evidence: Path | None,
    plots: tuple[Path, ...],
) -> None:
    with tempfile.TemporaryDirectory(prefix="qpipe-") as scratch:
        folder = Path(scratch)
        gates = json.dumps(gates_document(result.verdicts), indent=2, allow_nan=False)
        (folder / "gates.json").write_text(gates, encoding="utf-8")
        (folder / "gates.txt").write_text(text, encoding="utf-8")
        if result.log_tail:
            (folder / "log_tail.txt").write_text(result.log_tail, encoding="utf-8")
        for plot in plots:
            (folder / PLOTS).mkdir(exist_ok=True)
            shutil.copy(plot, folder / PLOTS)
        where.client.log_artifacts(run_id, scratch)
    if evidence is not None and result.evidence is not None:
        where.client.log_artifacts(run_id, str(evidence), artifact_path=f"evidence/{result.evidence.digest}")


def _note(text: str, experiment: str, parent: str, plots: tuple[Path, ...]) -> str:
    """What MLflow shows first of a run: the verdict, and where the rest is."""
    whole = f"[the parent run](#/experiments/{experiment}/runs/{parent}/artifacts/report.html)"
    more = f"Plots of this cell are artifacts, in `{PLOTS}`; the report" if plots else "The report"
    return f"```\n{text}\n```\n\n{more} of all cells is in {whole}."


def _log_batch(
    where: Experiment, run: Run, result: CellResult, model_id: str | None, dataset: Dataset | None, *, note: str
) -> None:
    """One call per cell."""
    from mlflow.entities import Metric, Param, RunTag

    found = figures(result)
    stamp = _stamp(where, run, [name for name, _ in found.finite])
    metrics = [
        Metric(
            name,
            value,
            stamp,
            0,
            model_id=model_id,
            dataset_name=dataset.name if dataset else None,
            dataset_digest=dataset.digest[:DATASET_DIGEST] if dataset else None,
            run_id=run.info.run_id,
        )
        for name, value in found.finite
    ]
    tags = _tags(result) | {"mlflow.note.content": note}
    if found.refused:
        tags["qpipe.not_logged"] = ", ".join(f"{name}={value}" for name, value in found.refused)
    tags[COMPLETE] = _content(result, model_id)
    params = {name: value for name, value in _params(result).items() if name not in run.data.params}
    where.client.log_batch(
        run.info.run_id,
        metrics=metrics,
        params=[Param(name, value) for name, value in params.items()],
        tags=[RunTag(name, value) for name, value in cut(tags).items()],
    )


def _stamp(where: Experiment, run: Run, names: Sequence[str]) -> int:
    """Milliseconds: the run's start, so that a replay stores nothing twice; of a cell that stands there, later ones.

    A cell that was judged or measured anew in the same run gets the time of day, or what follows its last figures where
    the clock was set back since: MLflow shows the latest.
    """
    if COMPLETE not in run.data.tags:
        return int(run.info.start_time)
    known = next((name for name in names if name in run.data.metrics), None)
    before = where.client.get_metric_history(run.info.run_id, known) if known else []
    return max([int(time.time() * 1000), *(one.timestamp + 1 for one in before)])


def _params(result: CellResult) -> dict[str, str]:
    params = {"model": result.model, "recipe": result.recipe, "target": result.target, "cell_key": result.key}
    if result.engine is not None:
        params |= {"backend": result.engine.backend, "model_digest": result.engine.model_digest}
    return params


def _tags(result: CellResult) -> dict[str, str]:
    """What may differ when the same cell is tried or judged again."""
    tags: dict[str, str] = {"qpipe.status": result.status}
    if result.decision is not None:
        tags["qpipe.decision"] = str(result.decision)
    if result.reason:
        tags |= {"qpipe.reason": result.reason, "qpipe.hint": result.hint}
    if result.engine is not None:
        tags["qpipe.engine"] = result.engine.digest
    if result.evidence is not None:
        tags["qpipe.evidence"] = result.evidence.digest
    return tags | {f"qpipe.gate.{verdict.gate}": f"{verdict.decision}: {verdict.reason}" for verdict in result.verdicts}
