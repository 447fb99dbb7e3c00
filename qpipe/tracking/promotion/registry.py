"""Model versions: made only of LoggedModels whose artifacts are there and are the engine's."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import PromotionError
from qpipe.records.engine import Engine
from qpipe.records.result import CellResult
from qpipe.tracking.models import PACKAGE, find_model
from qpipe.tracking.patience import patience, quiet
from qpipe.tracking.promotion.ledger import registered_model
from qpipe.tracking.runs import cut
from qpipe.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

_MANIFEST = "engine.json"
_VARIABLE = "MLFLOW_TRACKING_URI"


def verified_model(tracker: Tracker, engine: Engine, model_id: str | None) -> LoggedModel:
    """The LoggedModel of an engine, READY, its manifest read back and its files counted.

    MLflow registers a PENDING model without artifacts and shows it READY.

    Raises:
        PromotionError: not logged, not ready, or its artifacts are not the engine's.
    """
    if model_id is not None:
        model = _logged(tracker, model_id)
    else:
        model = find_model(tracker, tracker.experiment_id, engine.digest) or _anywhere(tracker, engine)
    if model is None:
        raise PromotionError(
            f"the engine {engine.digest[:12]} is not logged at {tracker.address}",
            hint="log it first: `qpipe sync RUN_ID` for a run that was not logged, else run the pipeline again",
        )
    if str(model.status) != "READY":
        raise PromotionError(f"the logged model {model.model_id} is {model.status}", hint="log its run again")
    _check_artifacts(tracker, model, engine)
    return model


def _logged(tracker: Tracker, model_id: str) -> LoggedModel | None:
    from mlflow.exceptions import MlflowException

    try:
        return tracker.client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _anywhere(tracker: Tracker, engine: Engine) -> LoggedModel | None:
    """An engine of a run that joined the user's own run lies in that run's experiment."""
    experiments = [one.experiment_id for one in tracker.client.search_experiments()]
    found = (find_model(tracker, one, engine.digest) for one in experiments if one != tracker.experiment_id)
    return next((model for model in found if model is not None), None)


def _check_artifacts(tracker: Tracker, model: LoggedModel, engine: Engine) -> None:
    from mlflow.artifacts import download_artifacts, list_artifacts

    folder = f"{model.artifact_location}/{PACKAGE}/engine"
    with tempfile.TemporaryDirectory(prefix="qpipe-") as scratch:
        there = {
            Path(item.path).name: item.file_size
            for item in list_artifacts(artifact_uri=folder, tracking_uri=tracker.uri)
        }
        absent = [
            file.name for file in engine.files if "/" not in file.name and there.get(file.name) != file.size_bytes
        ]
        if absent or _MANIFEST not in there:
            raise PromotionError(
                f"the logged model {model.model_id} lacks {', '.join([*absent, _MANIFEST][:3])}",
                hint="log its run again",
            )
        path = download_artifacts(artifact_uri=f"{folder}/{_MANIFEST}", dst_path=scratch, tracking_uri=tracker.uri)
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if found != engine.digest:
        raise PromotionError(
            f"the logged model {model.model_id} holds the engine {found[:12]}, not {engine.digest[:12]}",
            hint="its artifacts were changed after they were logged",
        )


def register(
    tracker: Tracker, name: str, model: LoggedModel, result: CellResult, *, force_reason: str | None = None
) -> str:
    """The version of an engine with this evidence: found by digests, or made. The lowest one counts."""
    engine = result.engine.digest if result.engine else ""
    evidence = result.evidence.digest if result.evidence else ""
    versions = _versions(tracker, name, engine, evidence)
    if versions:
        return str(versions[0])
    tags = {
        "qpipe.engine": engine,
        "qpipe.evidence": evidence,
        "qpipe.model_id": str(model.model_id),
        "qpipe.decision": str(result.decision or ""),
        "qpipe.cell_key": result.key,
    }
    if force_reason:
        tags["qpipe.forced"] = force_reason
    made = _create(tracker, name, model, cut(tags), f"{result.label}: {result.decision or 'no verdict'}")
    lowest = _versions(tracker, name, engine, evidence)[0]
    if made != lowest:  # somebody registered the same at the same time, or a request was retried
        tracker.client.delete_model_version(name, str(made))
    return str(lowest)


def _create(tracker: Tracker, name: str, model: LoggedModel, tags: dict[str, str], description: str) -> int:
    with quiet(), _resolving(tracker.uri):
        made = tracker.client.create_model_version(
            name,
            source=f"models:/{model.model_id}",
            run_id=model.source_run_id,
            tags=tags,
            description=description,
            model_id=model.model_id,
        )
    return int(made.version)


_pointed = threading.Lock()


@contextmanager
def _resolving(uri: str) -> Iterator[None]:
    """Let `models:/m-…` be looked up at `uri` while inside.

    A registry in a database that we open ourselves asks MLflow's URI for the whole process where the model lies, not
    its client's. Where the user has set another one, it is exchanged for this one call and restored; a server looks at
    home.
    """
    import mlflow
    from mlflow.tracking._tracking_service import utils

    with ExitStack() as inside:
        if not uri.startswith("http"):
            inside.enter_context(_pointed)
            inside.enter_context(patience({_VARIABLE: uri}))
            if mlflow.get_tracking_uri() != uri:
                inside.callback(_restore, utils._tracking_uri, os.environ.get(_VARIABLE))
                mlflow.set_tracking_uri(uri)
        yield


def _restore(uri: str | None, variable: str | None) -> None:
    import mlflow

    mlflow.set_tracking_uri(uri)  # type: ignore[arg-type]  # None is how MLflow itself takes it back
    os.environ.pop(_VARIABLE, None)
    if variable is not None:
        os.environ[_VARIABLE] = variable


def _versions(tracker: Tracker, name: str, engine: str, evidence: str) -> list[int]:
    found = tracker.client.search_model_versions(f"name = '{name}' and tags.`qpipe.engine` = '{engine}'")
    return sorted(int(one.version) for one in found if one.tags.get("qpipe.evidence", "") == evidence)


def alias_version(tracker: Tracker, name: str, alias: str) -> str | None:
    """The version that an alias points to in the registry, or None."""
    model = registered_model(tracker, name)
    version = model.aliases.get(alias) if model else None
    return None if version is None else str(version)


def is_deleted(tracker: Tracker, name: str, version: str) -> bool:
    """Whether a version is no longer in the registry; its aliases went with it."""
    from mlflow.exceptions import MlflowException

    try:
        tracker.client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return True
    return False
