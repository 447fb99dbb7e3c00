"""The tables of MLflow's own sqlite database as its migrations left them here before, kept as text.

MLflow makes a new database by some seventy migrations, which take a second and a half of one core; the text takes a
hundredth of that. It is kept per version of MLflow, for this user, and MLflow itself looks at what it makes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from qpipe.home import home

_OF_ONE_DATABASE = 'INSERT INTO "experiments"'
"""MLflow's default experiment has the time and the artifact folder of the database that it stands in."""


def lay_out(database: Path) -> bool:
    """Make the tables in a file that is not there yet; False where this MLflow has made none before."""
    try:
        text = kept_file().read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    with closing(sqlite3.connect(database)) as connection:
        try:
            connection.executescript(f"PRAGMA synchronous = OFF;\n{text}")
        except sqlite3.Error:  # the text is broken
            return False
    return True


def keep(database: Path) -> None:
    """Keep the tables of a database that MLflow has just made, where there is a place for them."""
    with suppress(OSError):
        file = kept_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        part.write_text(schema_of(database), encoding="utf-8")
        part.replace(file)


def kept_file() -> Path:
    """Where the text of this MLflow is kept."""
    from mlflow.version import VERSION

    return home() / "mlflow" / f"{VERSION}.sql"


def schema_of(database: Path) -> str:
    """The text of a database that MLflow has just made."""
    with closing(sqlite3.connect(database)) as connection:
        return "\n".join(_lines(connection)) + "\n"


def _lines(connection: sqlite3.Connection) -> Iterator[str]:
    for statement in connection.iterdump():
        if not statement.startswith(_OF_ONE_DATABASE):
            yield "\n".join(line.strip() for line in statement.splitlines())
