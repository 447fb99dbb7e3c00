"""MLflow's own sqlite database, made new: whole at once, and with one write to the disk instead of a hundred."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def make_database(database: Path, artifacts: str) -> None:
    """A new database appears whole: MLflow's migrations take a second in which a run may be killed."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(prefix=".qpipe-", dir=database.parent) as scratch:
        part = Path(scratch) / database.name
        with _unsynced(part):
            SqlAlchemyStore(f"sqlite:///{part}", artifacts).engine.dispose()  # type: ignore[no-untyped-call]  # MLflow's
        with part.open("rb") as file:
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # somebody else made it meanwhile
            os.link(part, database)


@contextmanager
def _unsynced(part: Path) -> Iterator[None]:
    """No wait for the disk at each of some sixty migrations of a file that nobody has yet."""
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
