"""Why an engine is worse, and why it is slower."""

from __future__ import annotations

from dataclasses import dataclass

from qpipe.records.engine import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step on the way from the float model to the engine, on the same rows."""

    name: str
    """`float`, `prepared`, `quantized` or `engine`."""
    metric: float | None
    """None without labels, or where it is undefined."""
    sqnr_db: float | None
    """Of the first output against the float model; None where equal, or not finite."""
    note: str = ""
    """Why a step is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One quantized tensor beside its float self."""

    tensor: str
    node: str
    op: str
    sqnr_db: float | None
    low: float
    high: float
    clipped: float
    """Share of calibration values outside the range, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What is odd about the calibration rows."""

    kind: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything that `qpipe explain` shows of one cell."""

    cell: str
    metric: str
    role: str
    rows: int
    steps: tuple[Step, ...]
    layers: tuple[Layer, ...]
    placement: Placement | None
    remarks: tuple[Remark, ...]
