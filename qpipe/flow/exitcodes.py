"""From results to the one exit code of a run."""

from __future__ import annotations

from collections.abc import Iterable

from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision

PASSED, BUG, USAGE, FAILED, INCONCLUSIVE, UNABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
_WORST_FIRST = (INTERRUPTED, BUG, USAGE, UNABLE, FAILED, INCONCLUSIVE)


def cell_code(result: CellResult) -> int:
    """What one cell contributes; the float reference contributes only when it could not run."""
    if result.status != "ok":
        return UNABLE
    if result.decision is Decision.FAIL:
        return FAILED
    if result.decision is Decision.INCONCLUSIVE:
        return INCONCLUSIVE
    return PASSED


def worst(codes: Iterable[int]) -> int:
    """The worst of several codes, in the order 130, 1, 2, 5, 3, 4; 0 only when all are 0."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), PASSED)


def run_code(results: Iterable[CellResult], *, logged: bool) -> int:
    """The exit code of a run: its cells, and whether results could be logged.

    A run that judged nothing (only float references, or no cell at all) is INCONCLUSIVE, never 0.
    """
    found = tuple(results)
    judged = any(result.decision is not None for result in found)
    return worst([*map(cell_code, found), PASSED if judged else INCONCLUSIVE, PASSED if logged else UNABLE])
