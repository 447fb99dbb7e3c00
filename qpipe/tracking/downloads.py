"""Files of models that MLflow holds, fetched whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import ModelError, UnavailableError
from qpipe.tracking.patience import quiet

if TYPE_CHECKING:
    from qpipe.tracking.tracker import Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a URI leads."""

    uri: str = ""
    """As the user wrote it."""
    artifacts: str
    """What MLflow downloads: a folder, or one file."""
    identity: str
    """What a cache may call it; empty where the files there can be exchanged."""
    beside: str
    """What else there is, for the hint where nothing is found."""


@contextmanager
def scratch_folder(into: Path) -> Iterator[Path]:
    """A folder beside the one that will hold the model, so that it can be renamed; gone afterwards."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".fetch-") as scratch:
        yield Path(scratch)


def download(tracker: Tracker, place: Place, name: str, into: Path) -> Path:
    """The file or folder `name` of a place (empty: all of it), below `into`.

    Raises:
        ModelError: nothing is there; the hint says what is.
        UnavailableError: the package that MLflow needs for such a store is not installed.
        MlflowException: MLflow has the files listed, but does not give them.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    into.mkdir(parents=True, exist_ok=True)
    wanted = f"{place.artifacts}/{name}" if name else place.artifacts
    with _importing(place):
        try:
            with quiet():
                got = Path(download_artifacts(artifact_uri=wanted, dst_path=str(into), tracking_uri=tracker.uri))
        except (MlflowException, OSError):
            tracker.client.search_experiments(max_results=1)  # a server that is gone says so here
            there = files_of(tracker, place)
            if name in there if name else there:
                raise
            raise _nothing(place, name if there else "") from None
    if not got.exists() or (got.is_dir() and not any(got.iterdir())):
        raise _nothing(place, name)
    return got


def files_of(tracker: Tracker, place: Place) -> tuple[str, ...]:
    """Names of the files and folders that lie at a place; nothing where it is none."""
    from mlflow.artifacts import list_artifacts
    from mlflow.exceptions import MlflowException

    with _importing(place):
        try:
            found = list_artifacts(artifact_uri=place.artifacts, tracking_uri=tracker.uri)
        except (MlflowException, OSError):
            return ()
    return tuple(Path(item.path).name for item in found or ())


def _nothing(place: Place, name: str) -> ModelError:
    what = f"no file {name}" if name else "nothing"
    return ModelError(f"{place.uri}: there is {what} at {place.artifacts}", hint=place.beside)


@contextmanager
def _importing(place: Place) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UnavailableError(
            f"{place.uri} lies at {place.artifacts}, for which MLflow needs the package {error.name}",
            hint=f"pip install {error.name}",
        ) from error
