"""Runs that are found by tag before they are made, so that nothing is ever logged twice."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.records.result import Promoted, RunResult
from qpipe.report.document import run_json
from qpipe.store.locks import lock_file
from qpipe.tracking.experiment import Experiment, RunStatus
from qpipe.tracking.holds import HOLD
from qpipe.tracking.orphans import ENDED, HEARTBEAT
from qpipe.tracking.owners import this_process

if TYPE_CHECKING:
    from mlflow.entities import Run

TAG_LIMIT = 8000
"""MLflow cuts longer tag values silently."""
PARAM_LIMIT = 6000
NAME_LIMIT = 250
"""Of a run: what databases other than sqlite hold."""
PROMOTED = "qpipe.promoted"
"""Tag of a parent run: what it promoted, and what was promoted of it by hand."""
MAKER = "qpipe.maker"
"""Tag with a token of the call that made a run or a model: its doubles by a retried request have the same."""
_PARENT = "mlflow.parentRunId"
_YOUNG_MS = 60_000


def start_run(
    where: Experiment, run_id: str, pipeline: str, params: Mapping[str, str], join: str | None, *, hold: str = ""
) -> str:
    """The parent run of a pipeline run, RUNNING again where it was found."""
    from mlflow.entities import Param, RunTag

    experiment = where.experiment_of(join) if join else where.experiment_id
    owned = {HEARTBEAT: str(this_process()), HOLD: hold}
    tags = {"qpipe.run_id": run_id, "qpipe.role": "pipeline", "qpipe.pipeline": pipeline, **owned}
    if join:
        tags[_PARENT] = join
    run = find_or_create(where, experiment, {"qpipe.run_id": run_id, "qpipe.role": "pipeline"}, tags, pipeline)
    if run.info.status != "RUNNING":
        where.client.update_run(run.info.run_id, status="RUNNING")
    known = run.data.params
    fresh = [Param(key, value[:PARAM_LIMIT]) for key, value in params.items() if key not in known]
    where.client.log_batch(run.info.run_id, params=fresh, tags=[RunTag(*tag) for tag in owned.items()])
    if ENDED in run.data.tags:  # it goes on
        where.client.delete_tag(run.info.run_id, ENDED)
    return str(run.info.run_id)


def find_or_create(
    where: Experiment, experiment: str, identity: Mapping[str, str], tags: Mapping[str, str], name: str
) -> Run:
    """The oldest run with the tags of `identity`; made where there is none.

    Makers on this machine take turns, so that they see each other's. A retried request, or another machine at the same
    moment, may have made more than one: the oldest is adopted, and doubles are deleted if this call made them or if
    they are old. A young one of another process is left to that process, which may be about to write to it.
    """
    maker = ""
    with turn(where, identity):
        runs = find_runs(where, experiment, identity)
        if not runs:
            maker = identity.get(MAKER, uuid.uuid4().hex)
            made = where.client.create_run(experiment, tags=cut({**tags, MAKER: maker}), run_name=name[:NAME_LIMIT])
            runs = [made] if where.is_local else find_runs(where, experiment, identity) or [made]
    old = time.time() * 1000 - _YOUNG_MS
    for double in runs[1:]:
        if double.data.tags.get(MAKER) == maker or double.info.start_time < old:
            where.client.delete_run(double.info.run_id)
    return runs[0]


@contextmanager
def turn(where: Experiment, identity: Mapping[str, str]) -> Iterator[None]:
    """One process of this machine at a time may make, or fill, what these tags name."""
    what = json.dumps([where.address, *sorted(identity.items())])
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    with lock_file(Path(tempfile.gettempdir(), f"qpipe-runs-{os.getuid()}", name)):
        yield


def find_runs(where: Experiment, experiment: str, identity: Mapping[str, str]) -> list[Run]:
    """Active runs with these tags, oldest first."""
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in identity.items())
    found = where.client.search_runs([experiment], filter_string=query, order_by=["attributes.start_time ASC"])
    return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def cut(tags: Mapping[str, str]) -> dict[str, str]:
    """Tag values as MLflow can hold them, the cut marked."""
    return {key: value if len(value) <= TAG_LIMIT else f"{value[: TAG_LIMIT - 1]}…" for key, value in tags.items()}


def finish_run(
    where: Experiment, parent: str, status: RunStatus, result: RunResult | None, artifacts: tuple[Path, ...]
) -> None:
    """End the parent run with its results as tags and files."""
    from mlflow.entities import RunTag

    if result is not None:
        tags = cut(_outcome(result))
        where.client.log_batch(parent, tags=[RunTag(key, value) for key, value in tags.items()])
        log_text(where, parent, "result.json", run_json(result))
    for path in artifacts:
        where.client.log_artifact(parent, str(path))
    where.client.set_terminated(parent, status=status)


def _outcome(result: RunResult) -> dict[str, str]:
    decisions = {cell.label: str(cell.decision or cell.status) for cell in result.cells}
    return {
        "qpipe.exit_code": str(result.exit_code),
        "qpipe.cells": ", ".join(f"{label}: {decision}" for label, decision in decisions.items()),
        PROMOTED: ", ".join(map(_moved, result.promoted)),
    }


def _moved(promoted: Promoted) -> str:
    return f"{promoted.model} v{promoted.version} as {promoted.alias}"


def note_promoted(where: Experiment, run_id: str, promoted: Promoted) -> None:
    """Add a promotion by hand to the tag of its run; a run that is not there any more has none."""
    from mlflow.exceptions import MlflowException

    try:
        told = where.client.get_run(run_id).data.tags.get(PROMOTED, "")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    before = [one for one in told.split(", ") if one]
    if _moved(promoted) not in before:
        tags = cut({PROMOTED: ", ".join([*before, _moved(promoted)])})
        where.client.set_tag(run_id, PROMOTED, tags[PROMOTED])


def log_text(where: Experiment, run_id: str, name: str, text: str) -> None:
    """A small text artifact of a run; `name` may hold folders."""
    with tempfile.TemporaryDirectory(prefix="qpipe-") as folder:
        path = Path(folder) / Path(name).name
        path.write_text(text, encoding="utf-8")
        parent = str(Path(name).parent)
        where.client.log_artifact(run_id, str(path), artifact_path=None if parent == "." else parent)
