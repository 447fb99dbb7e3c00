"""What comes back: one result per cell, one per run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qpipe.records.engine import Engine
from qpipe.records.evidence import Evidence
from qpipe.records.recipe import StageSpec
from qpipe.records.verdict import Decision, Verdict

Status = Literal["ok", "failed", "crashed", "timeout", "memory", "unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """What became of a cell. A crash, a time-out and a failed gate are results, not errors."""

    key: str
    model: str
    recipe: str
    target: str
    status: Status
    cached: bool = False
    reason: str = ""
    hint: str = ""
    log_tail: str = ""
    engine: Engine | None = None
    evidence: Evidence | None = None
    verdicts: tuple[Verdict, ...] = ()
    decision: Decision | None = None
    """None for the reference recipe and for cells without a result."""
    look: int | None = None
    """Which look at the gate rows this was for its family (float model, target, gate rows, toolchain)."""
    alpha: float | None = None
    """Error rate of a PASS that the ledger of looks left to it."""
    attribution: tuple[tuple[str, float], ...] = ()
    """Metric of each step: float, prepared, quantized ONNX, engine (loss attribution)."""
    seconds: float = 0.0

    @property
    def label(self) -> str:
        """`model/recipe/target`, as printed everywhere."""
        return f"{self.model}/{self.recipe}/{self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTrial:
    """One candidate of a search, judged on the search rows alone."""

    model: str
    target: str
    recipe: str
    chosen: bool
    reason: str
    """Why it was chosen or left."""
    value: float | None = None
    """The metric on the search rows."""
    reference: float | None = None
    """The metric of the float model on the same rows."""
    ratio: float | None = None
    """Latency over that of the float engine, at the first batch size."""
    ratio_high: float | None = None
    """Its one-sided 95 % upper bound."""
    sqnr_db: float | None = None
    """Of the engine's outputs on the search rows; None where equal to the float model's, or not finite."""
    size_bytes: int | None = None
    fails: str = ""
    """An exact gate (size, placement, finite) that it would fail whatever the rows, or empty."""
    units: int | None = None
    """How many outcomes of search rows its metric is made of."""
    missing: str = ""
    """Why its metric or its latency is not there, where it was built."""
    tried: str = ""
    """What a sampler chose for it, e.g. `ranges=entropy weights=mse`; empty for enumerated candidates."""
    stages: tuple[StageSpec, ...] | None = None
    """The recipe of a candidate that the search made; None for one that has a name of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """An engine that became a model version, and the alias that points to it."""

    model: str
    version: str
    alias: str
    engine: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A whole pipeline run, as `--json` prints it and `qpipe.flow` returns it."""

    run_id: str
    mlflow_run_id: str | None
    pipeline: str
    exit_code: int
    warnings: tuple[str, ...]
    cells: tuple[CellResult, ...]
    promoted: tuple[Promoted, ...]
    search: tuple[SearchTrial, ...] = ()
    """Every candidate that was tried, with why it was chosen or left."""
