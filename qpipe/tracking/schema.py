"""The tables of MLflow's own sqlite database as its migrations leave them, kept as text.

MLflow makes a new database by some seventy migrations, which take a second and a half of one core; the text takes a
hundredth of that. MLflow itself looks at the result, and where it is of another version its migrations run as ever.
`python qpipe/tracking/database.py` writes the text anew from the installed MLflow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

FILE = Path(__file__).with_name("mlflow_schema.sql")
_OF_ONE_DATABASE = 'INSERT INTO "experiments"'
"""MLflow's default experiment has the time and the artifact folder of the database that it stands in."""


def lay_out(database: Path) -> None:
    """Make the tables in a file that is not there yet."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(f"PRAGMA synchronous = OFF;\n{FILE.read_text(encoding='utf-8')}")


def schema_of(database: Path) -> str:
    """The text of a database that MLflow has just made."""
    with closing(sqlite3.connect(database)) as connection:
        return "\n".join(_lines(connection)) + "\n"


def revision_of(text: str) -> str:
    """The migration after which the tables look like that."""
    return text.partition('INSERT INTO "alembic_version" VALUES(\'')[2].partition("'")[0]


def _lines(connection: sqlite3.Connection) -> Iterator[str]:
    for statement in connection.iterdump():
        if not statement.startswith(_OF_ONE_DATABASE):
            yield "\n".join(line.strip() for line in statement.splitlines())
