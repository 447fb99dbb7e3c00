"""MLflow's own sqlite database, made new: whole at once, and with one write to the disk instead of a hundred."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qpipe.tracking.schema import keep, lay_out


def make_database(database: Path, artifacts: str) -> None:
    """A new database appears whole: making it takes a moment in which a run may be killed."""
    with tempfile.TemporaryDirectory(prefix=".qpipe-", dir=database.parent) as scratch:
        part = _made(Path(scratch), artifacts)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # somebody else made it meanwhile
            os.link(part, database)


def _made(folder: Path, artifacts: str) -> Path:
    from mlflow.exceptions import MlflowException

    part = folder / "laid-out.db"
    if lay_out(part):
        try:
            migrate(part, artifacts)
        except MlflowException:  # not the tables of this MLflow, which has the file open from now on
            pass
        else:
            return part
    part = folder / "migrated.db"
    migrate(part, artifacts)
    keep(part)
    return part


def migrate(part: Path, artifacts: str) -> None:
    """Let MLflow make its tables in a file that nobody has yet, or add what is missing there.

    Raises:
        MlflowException: the tables are all there, and of another version.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with _unsynced(part):
        SqlAlchemyStore(f"sqlite:///{part}", artifacts).engine.dispose()  # type: ignore[no-untyped-call]  # MLflow's


@contextmanager
def _unsynced(part: Path) -> Iterator[None]:
    """No wait for the disk at each of some seventy migrations of a file that nobody has yet."""
    from sqlalchemy import event  # MLflow's own
    from sqlalchemy.engine import Engine

    def unsync(connection: object, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection) and _file(connection) == part.resolve():
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", unsync)
    try:
        yield
    finally:
        event.remove(Engine, "connect", unsync)


def _file(connection: sqlite3.Connection) -> Path:
    """What a connection has open. Source: sqlite.org/pragma.html, `database_list`."""
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])
