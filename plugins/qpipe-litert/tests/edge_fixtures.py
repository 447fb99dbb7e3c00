"""Fixtures that the tests of edge plugins share; without the converter's environment those that build are skipped."""

from __future__ import annotations

import edge_models as edge
import pytest
from qpipe_litert.tools import tool_state

from qpipe.records.engine import Prepared, Unavailable


@pytest.fixture(scope="session")
def tool() -> None:
    """Skip where the converter's environment is not there: it takes 40 s and 0.7 GB to make."""
    state = tool_state()
    if isinstance(state, Unavailable):
        pytest.skip(f"{state.reason}: {state.hint}")


@pytest.fixture(scope="session")
def digits() -> edge.Digits:
    """Rows of digits in three roles."""
    return edge.digits()


@pytest.fixture(scope="session")
def digits_ready(digits: edge.Digits, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The digits net with a plan of minimum and maximum."""
    return edge.prepared(edge.digits_net(), tmp_path_factory.mktemp("digits"), digits.calibration)
