"""Models and engines that come from MLflow, by `models:/` and `runs:/` URIs."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import ModelError, nearest
from qpipe.tracking.connection import connect
from qpipe.tracking.patience import READ, calling, first_line
from qpipe.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from qpipe.tracking.flavor import LoggedEngine

FORMS = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID or runs:/RUN_ID/PATH"
_LOGGED = re.compile(r"models:/(?P<id>m-[^/@]+)")
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_RUN = re.compile(r"runs:/(?P<run>[^/]+)/(?P<path>.+)")
_LAST = 2**31 - 1
"""MLflow versions are 32-bit integers: asked for a larger one, its database fails instead of finding none."""
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a URI leads: what MLflow downloads, and what a cache may call it (empty for what can change)."""

    artifacts: str
    identity: str


def fetch_model(uri: str, into: Path, *, tracking_uri: str | None = None) -> Path:
    """The `.onnx` file of an ONNX-flavored model in MLflow, with its external data beside it, below `into`.

    What was fetched before is not fetched again. `tracking_uri` None means MLFLOW_TRACKING_URI, else sqlite here.

    Raises:
        ModelError: no such model, version, alias or run (says which there are), or not one of ONNX flavor.
        UnreachableError: MLflow does not answer.
    """
    if not uri.startswith(("models:/", "runs:/")):
        raise ModelError(f"{uri!r} is no MLflow URI of a model", hint=FORMS)
    tracker = connect(tracking_uri, None, folder=Path.cwd())
    with calling(tracker.uri, f"fetching {uri}", READ):
        place = _locate(tracker, uri)
        folder = into / hashlib.sha256(f"{tracker.uri} {place.identity}".encode()).hexdigest()[:32]
        if not folder.exists():
            _download(tracker, uri, place, folder)
    return _onnx_file(folder, uri)


def fetch_engine(tracker: Tracker, uri: str, into: Path) -> LoggedEngine:
    """The engine of a model version that qpipe promoted, downloaded into `into` and verified file by file.

    Raises:
        ModelError: no such model, version, alias or run, or not one of qpipe's.
        EngineError: a file is not what its manifest says.
    """
    from qpipe.tracking.flavor import read_package
    from qpipe.tracking.models import PACKAGE

    with calling(tracker.uri, f"fetching {uri}", READ):
        _download(tracker, uri, _locate(tracker, uri), into / "model")
    package = into / "model" / PACKAGE
    if not package.is_dir():
        raise ModelError(f"{uri} is not an engine of qpipe", hint="name a version or alias that qpipe promoted")
    return read_package(package)


def _locate(tracker: Tracker, uri: str) -> _Place:
    if match := _LOGGED.fullmatch(uri):
        return _logged(tracker, match["id"])
    if match := _VERSION.fullmatch(uri):
        return _versioned(tracker, match["name"], match["version"])
    if match := _ALIAS.fullmatch(uri):
        return _aliased(tracker, match["name"], match["alias"])
    if match := _RUN.fullmatch(uri):
        return _of_run(tracker, match["run"], match["path"])
    raise ModelError(f"{uri!r} is no MLflow URI of a model", hint=FORMS)


def _logged(tracker: Tracker, model_id: str) -> _Place:
    from mlflow.exceptions import MlflowException

    try:
        model = tracker.client.get_logged_model(model_id)
    except MlflowException as error:
        raise _missing(
            error, f"no logged model {model_id} at {tracker.address}", "look in the experiment's Models tab"
        ) from error
    if str(model.status) != "READY":
        raise ModelError(f"the logged model {model_id} is {model.status}", hint="log it again, to the end")
    return _Place(artifacts=str(model.artifact_location), identity=model_id)


def _versioned(tracker: Tracker, name: str, version: str) -> _Place:
    from mlflow.exceptions import MlflowException

    _require_model(tracker, name)
    try:
        return _of_version(tracker, tracker.client.get_model_version(name, str(min(int(version), _LAST))))
    except MlflowException as error:
        there = sorted(int(one.version) for one in tracker.client.search_model_versions(f"name = '{name}'"))
        raise _missing(error, f"{name} has no version {version}", f"there are: {_listed(there)}") from error


def _aliased(tracker: Tracker, name: str, alias: str) -> _Place:
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


def _of_version(tracker: Tracker, version: ModelVersion) -> _Place:
    artifacts = str(tracker.client.get_model_version_download_uri(version.name, str(version.version)))
    if match := _LOGGED.fullmatch(artifacts):
        return _logged(tracker, match["id"])
    return _Place(artifacts=artifacts, identity=f"{version.name}/{version.version}/{version.creation_timestamp}")


def _of_run(tracker: Tracker, run_id: str, path: str) -> _Place:
    """A model that the run has logged under that name, else an artifact folder of the run (as before MLflow 3)."""
    from mlflow.exceptions import MlflowException

    try:
        run = tracker.client.get_run(run_id)
    except MlflowException as error:
        raise _missing(error, f"no run {run_id} at {tracker.address}", FORMS) from error
    for output in run.outputs.model_outputs if run.outputs else ():
        if tracker.client.get_logged_model(output.model_id).name == path:
            return _logged(tracker, output.model_id)
    return _Place(artifacts=f"{run.info.artifact_uri}/{path}", identity=f"runs:/{run_id}/{path}")


def _missing(error: Exception, message: str, hint: str) -> Exception:
    """A `ModelError` where MLflow said that something is not there; else its own error, for `calling` to tell."""
    return ModelError(message, hint=hint) if getattr(error, "error_code", "") in _MISSING else error


def _download(tracker: Tracker, uri: str, place: _Place, folder: Path) -> None:
    """All files, or none: into a scratch folder first, then renamed."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        got = Path(scratch) / "got"
        got.mkdir()
        try:
            found = download_artifacts(artifact_uri=place.artifacts, dst_path=str(got), tracking_uri=tracker.uri)
        except (MlflowException, OSError) as error:
            raise ModelError(f"{uri}: nothing to download: {first_line(error)}", hint=_there(tracker, uri)) from error
        if not folder.exists():
            Path(found).rename(folder)


def _there(tracker: Tracker, uri: str) -> str:
    match = _RUN.fullmatch(uri)
    if match is None:
        return "log the model again"
    run = tracker.client.get_run(match["run"])
    models = [
        tracker.client.get_logged_model(one.model_id).name for one in (run.outputs.model_outputs if run.outputs else ())
    ]
    return f"the run has: {_listed([*models, *(item.path for item in tracker.client.list_artifacts(match['run']))])}"


def _onnx_file(folder: Path, uri: str) -> Path:
    from mlflow.models import Model

    if not (folder / "MLmodel").is_file():
        raise ModelError(
            f"{uri} is not an MLflow model: it has no MLmodel file", hint="log it with mlflow.onnx.log_model"
        )
    flavors = Model.load(str(folder)).flavors
    if "onnx" not in flavors:
        raise ModelError(
            f"{uri} is not of ONNX flavor: it has {_listed(sorted(flavors))}",
            hint="export it to ONNX and log that with mlflow.onnx.log_model",
        )
    path = (folder / str(flavors["onnx"].get("data", "model.onnx"))).resolve()
    if not path.is_file() or not path.is_relative_to(folder.resolve()):
        raise ModelError(f"{uri} has no file {flavors['onnx'].get('data')}", hint="log the model again")
    return path


def _listed(names: list[str] | list[int]) -> str:
    return ", ".join(map(str, names)) or "none"
