"""Where a `models:/` or `runs:/` URI leads, and what is there instead where it leads nowhere."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.errors import ModelError, nearest
from qpipe.tracking.downloads import Place
from qpipe.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

FORMS = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID or runs:/RUN_ID/PATH"
_LOGGED = re.compile(r"models:/(?P<id>m-[^/@]+)")
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_MOVING = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<stage>[^/@]+))?")
_RUN = re.compile(r"runs:/(?P<run>[^/]+)/(?P<path>.+)")
_LAST = 2**31 - 1
"""MLflow versions are 32-bit integers: asked for a larger one, its database fails instead of finding none."""
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_AGAIN = "log the model again"


def locate(tracker: Tracker, uri: str) -> Place:
    """Where the files of a model in MLflow lie.

    Raises:
        ModelError: no such model, version, alias or run (says which there are), or one that is not READY.
    """
    return replace(_locate(tracker, uri.rstrip("/")), uri=uri.rstrip("/"))


def _locate(tracker: Tracker, uri: str) -> Place:
    if match := _LOGGED.fullmatch(uri):
        return _ready(_logged(tracker, match["id"]))
    if match := _VERSION.fullmatch(uri):
        return _versioned(tracker, match["name"], match["version"])
    if match := _ALIAS.fullmatch(uri):
        return _aliased(tracker, match["name"], match["alias"])
    if match := _RUN.fullmatch(uri):
        return _of_run(tracker, match["run"], match["path"])
    if match := _MOVING.fullmatch(uri):
        raise _unversioned(tracker, uri, match["name"])
    raise ModelError(f"{uri!r} is no MLflow URI of a model", hint=FORMS)


def _logged(tracker: Tracker, model_id: str) -> LoggedModel:
    from mlflow.exceptions import MlflowException

    try:
        return tracker.client.get_logged_model(model_id)
    except MlflowException as error:
        raise _missing(
            error, f"no logged model {model_id} at {tracker.address}", "look in the experiment's Models tab"
        ) from error


def _ready(model: LoggedModel) -> Place:
    if str(model.status) != "READY":
        raise ModelError(
            f"the logged model {model.model_id} is {model.status}: whoever logged it did not come to the end",
            hint="log it again, or name another one: models:/m-ID",
        )
    return Place(artifacts=str(model.artifact_location), identity=str(model.model_id), beside=_AGAIN)


def _versioned(tracker: Tracker, name: str, version: str) -> Place:
    from mlflow.exceptions import MlflowException

    _require_model(tracker, name)
    try:
        return _of_version(tracker, tracker.client.get_model_version(name, str(min(int(version), _LAST))))
    except MlflowException as error:
        there = f"there are: {_listed(_versions(tracker, name))}"
        raise _missing(error, f"{name} has no version {version}", there) from error


def _aliased(tracker: Tracker, name: str, alias: str) -> Place:
    aliases = _require_model(tracker, name)
    if alias not in aliases:
        there = [f"{one} (version {version})" for one, version in sorted(aliases.items())]
        raise ModelError(f"{name} has no alias {alias!r}", hint=f"there are: {_listed(there)}")
    return _of_version(tracker, tracker.client.get_model_version(name, str(aliases[alias])))


def _require_model(tracker: Tracker, name: str) -> dict[str, str]:
    """Aliases of a registered model."""
    from qpipe.tracking.promotion.ledger import registered_model

    model = registered_model(tracker, name)
    if model is None:
        there = sorted(one.name for one in tracker.client.search_registered_models(max_results=100))
        raise ModelError(
            f"no registered model {name!r} at {tracker.address}{nearest(name, there)}",
            hint=f"there are: {_listed(there[:20])}",
        )
    return dict(model.aliases)


def _unversioned(tracker: Tracker, uri: str, name: str) -> ModelError:
    """`models:/NAME/latest` and stages, which MLflow takes: what they lead to changes without a record."""
    aliases = _require_model(tracker, name)
    forms = [*(f"models:/{name}@{alias}" for alias in sorted(aliases)), f"models:/{name}/VERSION"]
    there = _listed(_versions(tracker, name))
    return ModelError(f"{uri!r} names no version", hint=f"{' or '.join(forms)}; versions: {there}")


def _versions(tracker: Tracker, name: str) -> list[int]:
    return sorted(int(one.version) for one in tracker.client.search_model_versions(f"name = '{name}'"))


def _of_version(tracker: Tracker, version: ModelVersion) -> Place:
    if str(version.status) != "READY":
        why = f": {version.status_message}" if version.status_message else ""
        raise ModelError(
            f"version {version.version} of {version.name} is {version.status}{why}",
            hint="register it again, or name a version that is READY",
        )
    artifacts = str(tracker.client.get_model_version_download_uri(version.name, str(version.version)))
    if match := _LOGGED.fullmatch(artifacts):
        return _ready(_logged(tracker, match["id"]))
    source = _LOGGED.fullmatch(str(version.source))
    if source and (model := _still_there(tracker, source["id"])) is not None:  # as READY as the version claims to be
        return replace(_ready(model), artifacts=artifacts)
    stamp = f"{version.name}/{version.version}/{version.creation_timestamp}"
    return Place(artifacts=artifacts, identity=stamp, beside=_AGAIN)


def _still_there(tracker: Tracker, model_id: str) -> LoggedModel | None:
    """A logged model; None where it was deleted, though the files of its versions may be there all the same."""
    try:
        return _logged(tracker, model_id)
    except ModelError:
        return None


def _of_run(tracker: Tracker, run_id: str, path: str) -> Place:
    """A model that the run has logged under that name, else what lies among its artifacts (as before MLflow 3).

    Of several of one name the newest counts, as it does to MLflow: a training run logs one at each checkpoint.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = tracker.client.get_run(run_id)
    except MlflowException as error:
        raise _missing(error, f"no run {run_id} at {tracker.address}", FORMS) from error
    models = _models_of(tracker, run)
    name, _, rest = path.partition("/")
    if (model := models.get(name)) is not None:
        place = _ready(model)
        return replace(place, artifacts=f"{place.artifacts}/{rest}", identity="") if rest else place
    held = [*models, *(item.path for item in tracker.client.list_artifacts(run_id))]
    return Place(artifacts=f"{run.info.artifact_uri}/{path}", identity="", beside=f"the run has: {_listed(held)}")


def _models_of(tracker: Tracker, run: Run) -> dict[str, LoggedModel]:
    """The newest model of each name that a run has logged."""
    found = tracker.client.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'", max_results=1000
    )
    return {str(one.name): one for one in sorted(found, key=lambda model: (model.creation_timestamp, model.model_id))}


def _missing(error: Exception, message: str, hint: str) -> Exception:
    """A `ModelError` where MLflow said that something is not there; else its own error, for `calling` to tell."""
    return ModelError(message, hint=hint) if getattr(error, "error_code", "") in _MISSING else error


def _listed(names: list[str] | list[int]) -> str:
    return ", ".join(map(str, names)) or "none"
