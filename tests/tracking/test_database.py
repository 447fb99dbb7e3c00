"""A new database is what MLflow's migrations make, and does not wait for the disk; every other one does."""

import sqlite3
from contextlib import closing

import pytest
import sqlalchemy

from qpipe.tracking import schema
from qpipe.tracking.database import _unsynced, make_database, migrate


def is_synced(path) -> bool:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar()
    engine.dispose()
    return found != 0


def test_only_the_database_that_is_being_made_and_only_meanwhile(tmp_path):
    with _unsynced(tmp_path / "new.db"):
        assert not is_synced(tmp_path / "new.db")
        assert is_synced(tmp_path / "the-users.db")
    assert is_synced(tmp_path / "new.db")
    with pytest.raises(ZeroDivisionError), _unsynced(tmp_path / "new.db"):
        raise ZeroDivisionError
    assert is_synced(tmp_path / "new.db")


def revision_in(database) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def statements(text: str) -> list[list[str]]:
    """MLflow's migrations write constraints and indexes in another order each time."""
    return sorted(sorted(line.rstrip(",") for line in one.splitlines()) for one in text.split(";\n"))


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A database as MLflow makes it by all its migrations."""
    path = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    migrate(path, path.parent.as_uri())
    return path


def test_the_kept_schema_is_what_the_migrations_make(migrated):
    kept = schema.FILE.read_text(encoding="utf-8")
    if schema.revision_of(kept) != revision_in(migrated):
        pytest.skip("another MLflow than the schema was written from: its migrations run instead")
    assert statements(schema.schema_of(migrated)) == statements(kept), "python qpipe/tracking/database.py"


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda text: text, id="this MLflow's"),
        pytest.param(lambda text: text.replace(schema.revision_of(text), "0ldf00d"), id="another MLflow's"),
    ],
)
def test_a_new_database_has_every_table_whatever_schema_was_kept(spoil, migrated, tmp_path, monkeypatch):
    kept = tmp_path / "kept.sql"
    kept.write_text(spoil(schema.FILE.read_text(encoding="utf-8")))
    monkeypatch.setattr(schema, "FILE", kept)
    made = tmp_path / "mlflow.db"
    make_database(made, tmp_path.as_uri())
    assert statements(schema.schema_of(made)) == statements(schema.schema_of(migrated))
    with closing(sqlite3.connect(made)) as connection:
        assert connection.execute("SELECT name, artifact_location FROM experiments").fetchall() == [
            ("Default", f"{tmp_path.as_uri()}/0")
        ]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".sql"] == ["mlflow.db"]
