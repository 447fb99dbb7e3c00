"""What becomes of an engine that is fetched, copied, changed, or opened elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from qpipe.engines import read_engine
from qpipe.errors import EngineError, QpipeError
from qpipe.plugins.backend import Backend, Session
from qpipe.records.engine import Availability, Engine, Unavailable
from qpipe.records.target import Target
from qpipe.testing.cases import Case
from qpipe.testing.comparing import run
from qpipe.testing.models import small_rows
from qpipe.testing.subject import Subject
from qpipe.testing.surroundings import bytes_below


class MovedContract(Subject):
    """An engine is its folder, wherever that lies."""

    def test_an_engine_works_in_another_folder(
        self, case: Case, session: Session, backend: Backend, target: Target, tmp_path: Path
    ) -> None:
        """It is fetched, copied and moved: nothing may name its place, be written to, or stay behind in the backend."""
        shutil.copytree(case.engine.path, tmp_path / "copy")
        for path in (tmp_path / "copy").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = bytes_below(tmp_path / "copy")
        hidden = case.engine.path.rename(case.engine.path.with_name("hidden"))
        try:
            copy = _opened(type(backend)(), read_engine(tmp_path / "copy"), target)
            found = run(copy, small_rows(2))
            copy.close()
        finally:
            hidden.rename(case.engine.path)
        np.testing.assert_allclose(found, run(session, small_rows(2)), rtol=1e-5, atol=1e-6)
        assert bytes_below(tmp_path / "copy") == before

    def test_a_changed_engine_is_refused(self, case: Case, tmp_path: Path) -> None:
        """One flipped byte of any file, through the manifest."""
        for name in [file.name for file in case.engine.files]:
            copy = tmp_path / name.replace("/", "_")
            shutil.copytree(case.engine.path, copy)
            data = bytearray((copy / name).read_bytes())
            data[len(data) // 2] ^= 1
            (copy / name).write_bytes(data)
            with pytest.raises(EngineError, match="expected sha256"):
                read_engine(copy)

    def test_where_it_cannot_run_it_says_so(
        self, case: Case, backend: Backend, target: Target, state: Availability
    ) -> None:
        """`open` raises an error for users, where `check` says that engines do not run here."""
        if not isinstance(state.run, Unavailable):
            pytest.skip("engines run here")
        with pytest.raises(QpipeError) as caught:
            backend.open(case.engine, target)
        assert caught.value.message.strip()


def _opened(backend: Backend, engine: Engine, target: Target) -> Session:
    try:
        return backend.open(engine, target)
    except Exception as error:
        told = "a copy of the engine does not open with a new backend object: let `open` need its files alone"
        raise AssertionError(f"{told} ({error})") from error
