from __future__ import annotations

import pytest
from child_work import Place

from qpipe.testing.fake import fake_site


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    """Where cells of the fake backend are worked on in this process."""
    monkeypatch.syspath_prepend(str(fake_site()))
    monkeypatch.chdir(tmp_path)
    return Place(folder=tmp_path)
