"""Models and engines that come from MLflow, by `models:/` and `runs:/` URIs."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import ModelError
from qpipe.models.digest import digest_onnx
from qpipe.records.model import is_in_mlflow
from qpipe.tracking.connection import connect
from qpipe.tracking.downloads import Place, download, files_of, scratch_folder
from qpipe.tracking.onnxmodels import DESCRIPTION, LOG_IT, download_graph, onnx_name, whole_model
from qpipe.tracking.patience import READ, calling
from qpipe.tracking.places import FORMS, locate
from qpipe.tracking.tracker import Tracker

if TYPE_CHECKING:
    from qpipe.tracking.flavor import LoggedEngine


def fetch_model(uri: str, into: Path, *, tracking_uri: str | None = None) -> Path:
    """The `.onnx` file of an ONNX-flavored model in MLflow, with its external data beside it, below `into`.

    What was fetched before is not fetched again. `tracking_uri` None means MLFLOW_TRACKING_URI, else sqlite here.

    Raises:
        ModelError: no such model, version, alias or run (says which there are), or not one of ONNX flavor.
        UnreachableError: MLflow does not answer.
    """
    if not is_in_mlflow(uri):
        raise ModelError(f"{uri!r} is no MLflow URI of a model", hint=FORMS)
    tracker = connect(tracking_uri, None, folder=Path.cwd())
    with calling(tracker.uri, f"fetching {uri}", READ):
        place = locate(tracker, uri)
        if place.artifacts.endswith(".onnx"):
            return _bare(tracker, place, into)
        if place.identity and (folder := _kept(tracker, place.identity, into)).exists():
            return folder / onnx_name(folder / DESCRIPTION, uri)
        return _whole(tracker, place, into)


def _kept(tracker: Tracker, identity: str, into: Path) -> Path:
    return into / hashlib.sha256(f"{tracker.uri} {identity}".encode()).hexdigest()[:32]


def _whole(tracker: Tracker, place: Place, into: Path) -> Path:
    """A logged model, asked what it is before its weights are fetched, and kept once all of them are there."""
    with scratch_folder(into) as scratch:
        described = _describe(tracker, place, scratch / "described")
        name = onnx_name(described, place.uri)
        identity = place.identity or f"{place.artifacts} {hashlib.sha256(described.read_bytes()).hexdigest()}"
        folder = _kept(tracker, identity, into)
        if not folder.exists():
            got = download(tracker, place, "", scratch / "got")
            whole_model(got, name, place.uri)
            with suppress(FileExistsError):  # somebody else fetched it meanwhile
                got.rename(folder)
    return folder / name


def _describe(tracker: Tracker, place: Place, into: Path) -> Path:
    there = files_of(tracker, place)
    if there and DESCRIPTION not in there:
        bare = [name for name in there if name.endswith(".onnx")]
        hint = f"name the file: {place.uri}/{bare[0]}" if bare and place.uri.startswith("runs:/") else LOG_IT
        raise ModelError(f"{place.uri} is not an MLflow model: it has no {DESCRIPTION} file", hint=hint)
    return download(tracker, place, DESCRIPTION, into)


def _bare(tracker: Tracker, place: Place, into: Path) -> Path:
    """An `.onnx` file among a run's artifacts: it can be exchanged there, so that it is fetched each time."""
    folder, _, name = place.artifacts.rpartition("/")
    with scratch_folder(into) as scratch:
        path = download_graph(tracker, replace(place, artifacts=folder), name, scratch / "got")
        kept = into / digest_onnx(path).digest[:32]
        if not kept.exists():
            with suppress(FileExistsError):
                path.parent.rename(kept)
    return kept / name


def fetch_engine(tracker: Tracker, uri: str, into: Path) -> LoggedEngine:
    """The engine of a model version that qpipe promoted, downloaded into `into` and verified file by file.

    Raises:
        ModelError: no such model, version, alias or run, or not one of qpipe's.
        EngineError: a file is not what its manifest says.
    """
    from qpipe.tracking.flavor import read_package
    from qpipe.tracking.models import PACKAGE

    with calling(tracker.uri, f"fetching {uri}", READ):
        package = download(tracker, locate(tracker, uri), "", into / "model") / PACKAGE
    if not package.is_dir():
        raise ModelError(f"{uri} is not an engine of qpipe", hint="name a version or alias that qpipe promoted")
    return read_package(package)
