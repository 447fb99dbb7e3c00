"""What was measured about one engine: outcomes per row, raw latencies, memory, size.

Arrays live in `.npz` files of the evidence folder; these records name them.
"""

from __future__ import annotations

from dataclasses import dataclass

from qpipe.records.engine import Fact, Kind, Placement
from qpipe.records.explanation import Attribution
from qpipe.records.remark import Remark


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The outcome of running one engine (or the reference) over the rows of one role.

    The evidence folder holds `evaluation.npz` with `units` float64 [n, k] (what the metric aggregates),
    `unit_rows` int64 [n] (first row of each unit), `agreement` float64 [rows] (1 where the top class equals the
    reference's, or the cosine with the reference's output), and nothing that is not needed to decide again.
    """

    kind: Kind
    role: str
    data_digest: str
    metric: str
    rows: int
    units: int
    value: float | None
    """The metric over all units; None where it is undefined (NaN in the outputs, a constant column)."""
    nonfinite_rows: int
    """Rows with NaN or infinity in any output."""
    sqnr_db: float | None
    """10·log10(Σ ref² / Σ (ref − out)²) on the first output; None for the reference itself or when infinite."""
    cosine: float | None
    """Mean cosine per row with the reference's first output."""
    outputs_digest: str
    """SHA-256 over outputs of the sampled rows, compared with those of the timed run."""
    seconds: float
    guessing: float | None = None
    """For the reference: what guessing would be worth; None where the metric does not say, or without labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """A latency percentile with order-statistic bounds (one-sided 95 % each), in milliseconds."""

    value: float
    low: float | None
    high: float | None
    """None where the number of samples cannot bound it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """engine / float engine: geometric mean over processes with a two-sided 90 % interval (one-sided 95 % each)."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProfile:
    """Latency of one engine at one batch size, beside the float engine that ran interleaved with it."""

    batch: int
    latency_ms: tuple[tuple[str, Percentile], ...]
    """p50, p90, p95, p99 of wall time."""
    baseline_ms: tuple[tuple[str, Percentile], ...]
    ratio: Ratio | None
    cpu_ratio: Ratio | None
    """The same on thread CPU time: a diagnostic, never gated."""
    log_ratios: tuple[float, ...]
    """log(median engine / median float) of each process: what `speedup` decides on."""
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Latency, memory and the conditions they were taken under. Raw samples are in `profile.npz`."""

    kind: Kind
    batches: tuple[BatchProfile, ...]
    peak_rss_bytes: tuple[int, ...]
    """Peak resident set of loading and running, one number per process of its own."""
    load_ms: float
    threads: int
    processes: int
    rounds: int
    conditions: tuple[tuple[str, str], ...]
    """Load average, governor, CPU model, ISA flags, versions."""
    voided: int
    """How often the run was thrown away because the ratio of an engine to float drifted."""
    drifted: bool
    """True where even in the last try the ratio drifted: times are then INCONCLUSIVE."""
    outputs_match: bool
    """Outputs sampled in the timed run equal those that were evaluated."""
    drift: str = ""
    """How far the ratio moved, where it drifted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMeasured:
    """A measurement that was not made, and why. Nothing unmeasured ever passes."""

    reason: str
    hint: str = ""
    """What would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that gates see of one cell; `digest` names the folder in the store."""

    digest: str
    model_digest: str
    engine_digest: str
    evaluation: Evaluation | NotMeasured
    reference: Evaluation | NotMeasured
    profile: Profile | NotMeasured
    engine_size_bytes: int
    baseline_size_bytes: int
    """Of the float engine; 0 where there is none."""
    placement: Placement | None
    facts: tuple[Fact, ...]
    attribution: Attribution | None = None
    """Where the loss comes from; None where nothing was measured."""
    remarks: tuple[Remark, ...] = ()
    """What the calibration lint found."""

    @property
    def first_batch(self) -> BatchProfile | None:
        """What was measured at the first batch size."""
        return self.profile.batches[0] if isinstance(self.profile, Profile) and self.profile.batches else None

    @property
    def size_ratio(self) -> float | None:
        """Bytes in parts of the float engine's; None where there is none."""
        return self.engine_size_bytes / self.baseline_size_bytes if self.baseline_size_bytes else None
