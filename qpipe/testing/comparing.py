"""What a session gives, beside what it should give."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from qpipe.plugins.backend import Session
from qpipe.plugins.calls import one_line

EXACT = 1e-5
"""Largest relative difference of two float computations of the small network; int8 rounds a hundred times as much."""


def run(session: Session, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The small network's logits."""
    outputs = session.run({"image": rows})
    assert isinstance(outputs, Mapping), f"run gives {type(outputs).__name__}: give a dict, outputs by name"
    assert "logits" in outputs, f"run gives {list(outputs)}: give ['logits']"
    return np.asarray(outputs["logits"])


def assert_same(session: Session, rows: NDArray[np.float32], expected: NDArray[np.float32], told: str) -> None:
    """A session gives these outputs for these rows."""
    found = np.full_like(expected, np.nan)
    said = error_of(lambda: np.copyto(found, run(session, rows)))
    assert said is None, f"{told} ({said})"
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=told)


def off_by(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest difference, relative to the largest output."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def error_of(call: Callable[[], object], kind: type[Exception] = Exception, what: str = "") -> str | None:
    """What an error of that kind says, or None where the call returns; any other is told as the wrong kind."""
    try:
        call()
    except kind as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{what} raises {one_line(error)}: let it raise {kind.__name__}") from error
    return None
