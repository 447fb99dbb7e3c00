"""A new database does not wait for the disk; every other one does."""

import pytest
import sqlalchemy

from qpipe.tracking.database import _unsynced


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
