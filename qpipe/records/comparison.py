"""Two runs side by side."""

from __future__ import annotations

from dataclasses import dataclass

from qpipe.records.result import Status
from qpipe.records.verdict import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one run says of a cell; None where it was not measured."""

    status: Status
    decision: Decision | None
    metric: float | None
    ratio: float | None
    """Latency over that of the float engine, at the first batch size."""
    size_bytes: int | None
    engine: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One cell in two runs; None where a run does not have it."""

    cell: str
    before: Standing | None
    after: Standing | None
