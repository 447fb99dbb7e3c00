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


def statements(text: str) -> list[list[str]]:
    """MLflow's migrations write constraints and indexes in another order each time."""
    return sorted(sorted(line.rstrip(",") for line in one.splitlines()) for one in text.split(";\n"))


def revised(text: str) -> str:
    """The text of a database after another migration."""
    before, head, after = text.partition('INSERT INTO "alembic_version" VALUES(\'')
    return before + head + "0ldf00d'" + after.partition("'")[2]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A database as MLflow makes it by all its migrations."""
    path = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    migrate(path, path.parent.as_uri())
    return path


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(lambda text: text, id="this MLflow's"),
        pytest.param(revised, id="another MLflow's"),
        pytest.param(lambda text: text[:2000], id="broken"),
        pytest.param(None, id="none"),
    ],
)
def test_a_new_database_has_every_table_whatever_was_kept(kept, migrated, tmp_path, monkeypatch):
    monkeypatch.setenv("QPIPE_HOME", str(tmp_path / "home"))
    right = schema.schema_of(migrated)
    if kept is not None:
        schema.kept_file().parent.mkdir(parents=True)
        schema.kept_file().write_text(kept(right))
    made = tmp_path / "mlflow.db"
    make_database(made, tmp_path.as_uri())
    assert statements(schema.schema_of(made)) == statements(right)
    assert statements(schema.kept_file().read_text()) == statements(right)
    with closing(sqlite3.connect(made)) as connection:
        assert connection.execute("SELECT name, artifact_location FROM experiments").fetchall() == [
            ("Default", f"{tmp_path.as_uri()}/0")
        ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "mlflow.db"]


def test_a_home_that_cannot_be_written_costs_the_copy_alone(migrated, tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("QPIPE_HOME", str(tmp_path / "home"))
    schema.keep(migrated)
    assert not schema.lay_out(tmp_path / "mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()
