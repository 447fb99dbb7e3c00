"""Reaching MLflow before any work starts."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from qpipe.errors import ConfigError, QpipeError, UnreachableError
from qpipe.home import user_home
from qpipe.tracking.database import make_database
from qpipe.tracking.patience import address, first_line, patience, quiet, rights
from qpipe.tracking.suitable import check_suitable
from qpipe.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

OFFLINE_HINT = (
    "start the server, correct `tracking: uri:` or MLFLOW_TRACKING_URI, or run with --offline and `qpipe sync` later"
)
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""What MLflow opens from here without a server of its own, and the usual ports."""
_DEFAULT = "0"
"""MLflow's id of the experiment that every store has, though it may be deleted."""
_PORTS = {"http": 80, "https": 443, **DATABASES}


def resolve_uri(uri: str | None, *, folder: Path) -> str:
    """The tracking URI in force: as given, else MLFLOW_TRACKING_URI, else sqlite in the working folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve()}/mlflow.db"


def stray_mlruns(folder: Path) -> Path | None:
    """A leftover `mlruns` with experiments in it, which flips MLflow's own default from sqlite to the file store."""
    mlruns = folder / "mlruns"
    return mlruns if any(mlruns.glob("[0-9]*/meta.yaml")) else None


def connect(uri: str | None, experiment: str | None, *, folder: Path, timeout_s: float = 10.0) -> Tracker:
    """A tracker on a server that answered within `timeout_s`, with the experiment made where it was missing.

    `uri` None means MLFLOW_TRACKING_URI, else `sqlite:///<folder>/mlflow.db` with artifacts in `<folder>/mlartifacts`.
    `experiment` None is for whoever reads: none is looked for, nor made.

    Raises:
        UnreachableError: no answer in time, no right to be there, or a folder that cannot be written (exit code 2).
        ConfigError: a URI or an experiment that MLflow cannot use.
    """
    deadline = time.monotonic() + timeout_s
    resolved = knock(uri, folder=folder, timeout_s=timeout_s)
    database = sqlite_file(resolved)
    client, found = _open(resolved, experiment, database, max(1, int(deadline - time.monotonic())))
    return Tracker(
        uri=resolved,
        experiment=found.name if found else "",
        experiment_id=found.experiment_id if found else _DEFAULT,
        client=client,
        warnings=_warnings(folder, resolved),
    )


def knock(uri: str | None, *, folder: Path, timeout_s: float = 10.0) -> str:
    """The tracking URI in force, where somebody answers or a database can be written; MLflow is not imported for it.

    Raises:
        UnreachableError: no answer in time, or a folder that cannot be written (exit code 2).
        ConfigError: MLflow's file store, or no URI; or a user without a home folder, which MLflow itself needs.
    """
    resolved = resolve_uri(uri, folder=folder)
    _check_parts(resolved)
    _refuse_file_store(resolved)
    user_home()
    database = sqlite_file(resolved)
    if database is not None:
        _check_writable(database)
    else:
        _touch_port(resolved, timeout_s)
    return resolved


def database_mark(uri: str | None, *, folder: Path) -> str | None:
    """What changes with every write to a local sqlite database (place, size and time of its files); None elsewhere."""
    database = sqlite_file(resolve_uri(uri, folder=folder))
    if database is None:
        return None
    files = [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-journal")]
    try:
        found = [file.stat() for file in files if file == database or file.exists()]
    except OSError:
        return None
    return " ".join(f"{one.st_dev}:{one.st_ino}:{one.st_size}:{one.st_mtime_ns}" for one in found)


def sqlite_file(uri: str) -> Path | None:
    """The database file of a `sqlite:///` URI, else None."""
    return Path(os.path.realpath(unquote(uri.removeprefix("sqlite:///")))) if uri.startswith("sqlite:///") else None


def experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """The experiment of that name, made where it is missing; two makers at once end with one."""
    return _experiment(client, name, artifacts).experiment_id


def artifact_location(uri: str) -> str | None:
    """Artifacts lie beside a sqlite database, not in the current folder; a server has its own place."""
    database = sqlite_file(uri)
    return None if database is None else (database.parent / "mlartifacts").as_uri()


def _warnings(folder: Path, uri: str) -> tuple[str, ...]:
    stray = stray_mlruns(folder)
    if stray is None:
        return ()
    return (
        f"{stray} is left from MLflow's file store: plain `mlflow ui` there shows it instead of {address(uri)};"
        " move it away",
    )


def _check_parts(uri: str) -> None:
    try:
        urlsplit(uri).port  # noqa: B018  (looks at the brackets and the port)
    except ValueError as error:
        raise ConfigError(
            f"tracking uri {address(uri)!r} cannot be read: its host or port is none",
            hint="http://HOST:PORT, sqlite:///PATH/mlflow.db or a database; in a password @ is %40, / is %2F, # is %23",
        ) from error


def _refuse_file_store(uri: str) -> None:
    if urlsplit(uri).scheme in ("", "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
        raise ConfigError(
            f"tracking uri {uri!r} is MLflow's file store, which MLflow 3 no longer serves",
            hint="use sqlite:///PATH/mlflow.db or http://HOST:PORT",
        )


def _check_writable(database: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        probe = database.parent / f".qpipe-{os.getpid()}"
        probe.touch()
        probe.unlink()
        if database.exists():
            database.open("r+b").close()
    except OSError as error:
        raise UnreachableError(
            f"cannot write the MLflow database {database}: {error.strerror}",
            hint="make the folder writable, or name another place with `tracking: uri:` or MLFLOW_TRACKING_URI",
        ) from error


def _touch_port(uri: str, timeout_s: float) -> None:
    """A TCP connection first: MLflow and SQLAlchemy would try for minutes."""
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.split("+")[0])
    if parts.hostname is None or port is None:
        return
    try:
        socket.create_connection((parts.hostname, port), timeout=timeout_s).close()
    except OSError as error:
        raise UnreachableError(f"no MLflow server at {address(uri)}: {error}", hint=OFFLINE_HINT) from error


def _try_database(uri: str) -> None:
    """One attempt at a database that we open ourselves: MLflow would try for minutes."""
    import sqlalchemy  # MLflow's own

    try:
        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"MLflow at {address(uri)} needs the package {error.name}, which is not installed",
            hint="install it, or name the driver that you have in the URI, as in postgresql+psycopg2://",
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UnreachableError(f"no MLflow at {address(uri)}: {first_line(error)}", hint=OFFLINE_HINT) from error


def _open(uri: str, name: str | None, database: Path | None, left_s: int) -> tuple[MlflowClient, Experiment | None]:
    from mlflow import MlflowClient

    probing = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(left_s),
        # Only read for a database that we open ourselves: MLflow would make `./mlruns` its artifact root.
        **({"_MLFLOW_SERVER_ARTIFACT_ROOT": str(database.parent / "mlartifacts")} if database else {}),
    }
    try:
        with patience(probing), quiet():
            if database is not None and not database.exists():
                make_database(database, (database.parent / "mlartifacts").as_uri())
            if urlsplit(uri).scheme.split("+")[0] in DATABASES:
                _try_database(uri)
            client = MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)
            if name is None:
                client.search_experiments(max_results=1)  # whoever may do nothing else may do that
            found = None if name is None else _experiment(client, name, artifact_location(uri))
            if found is not None:
                check_suitable(client, found, uri)
    except _refusals() as error:
        raise _unopened(error, uri, name) from error
    if found is not None and found.lifecycle_stage != "active":
        raise ConfigError(
            f"the experiment {name!r} at {address(uri)} is deleted",
            hint=f"restore it (`mlflow experiments restore -x {found.experiment_id}`) or name another one",
        )
    return client, found


def _unopened(error: Exception, uri: str, name: str | None) -> QpipeError:
    """What the user is told of an MLflow that could not be opened."""
    said = first_line(error)
    if needed := rights(error):
        return UnreachableError(f"MLflow at {address(uri)} does not let this user in: {said}", hint=needed)
    if name is not None and getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
        return ConfigError(
            f"MLflow at {address(uri)} cannot have the experiment {name[:80]!r}: {said}",
            hint="another name with `tracking: experiment:`, of 500 characters at most",
        )
    hint = f"back it up, then: mlflow db upgrade {address(uri)}" if "out-of-date" in str(error) else OFFLINE_HINT
    return UnreachableError(f"no MLflow at {address(uri)}: {said}", hint=hint)


def _refusals() -> tuple[type[Exception], ...]:
    """MLflow's errors, and the database's that it lets through where no table can be made (a full disk)."""
    import sqlalchemy  # MLflow's own
    from mlflow.exceptions import MlflowException

    return (MlflowException, OSError, sqlalchemy.exc.SQLAlchemyError)


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> Experiment:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, artifact_location=artifacts and f"{artifacts}/{_slug(name)}")
        except MlflowException:
            if client.get_experiment_by_name(name) is None:  # not a race that somebody else won
                raise
        found = client.get_experiment_by_name(name)
        assert found is not None  # made a moment ago
    return found


def _slug(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name)
