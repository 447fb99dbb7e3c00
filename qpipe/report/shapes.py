"""The shape of the JSON document of a run. These keys are a promise: they are added to, never renamed or removed."""

from __future__ import annotations

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from qpipe.records.engine import Kind
from qpipe.records.result import Status
from qpipe.records.verdict import Decision

Numbers = dict[str, float | None]
"""Figures by name; null for one that is not finite."""
_CLOSED = ConfigDict(extra="forbid")


@with_config(_CLOSED)
class SliceShape(TypedDict):
    """One slice of a gate."""

    name: str
    verdict: Decision
    observed: float | None
    low: float | None
    high: float | None
    n: int
    screen: bool


@with_config(_CLOSED)
class GateShape(TypedDict):
    """What one gate decided, and from what."""

    verdict: Decision
    observed: float | None
    low: float | None
    high: float | None
    limit: float | None
    n: int | None
    alpha: float | None
    kind: Kind | None
    reason: str
    advice: str
    required: bool
    notes: list[str]
    slices: list[SliceShape]


@with_config(_CLOSED)
class EngineShape(TypedDict):
    """An engine folder."""

    digest: str
    path: str
    files: list[str]
    size_bytes: int
    notes: list[str]


@with_config(_CLOSED)
class MetricsShape(TypedDict):
    """The metric along the way: float model as given, quantized ONNX graph, engine."""

    reference: Numbers
    quantized: Numbers
    engine: Numbers


@with_config(_CLOSED)
class RatioShape(TypedDict):
    """engine / float engine, with a two-sided 90 % interval."""

    median: float
    low: float
    high: float


@with_config(_CLOSED)
class BatchShape(TypedDict):
    """Latency at one batch size: p50, p90, p95, p99 in milliseconds."""

    latency_ms: Numbers
    baseline_ms: Numbers
    ratio: RatioShape | None


@with_config(_CLOSED)
class ProfileShape(TypedDict):
    """Latency by batch size, and the largest resident set."""

    kind: Kind
    batch: dict[str, BatchShape]
    peak_rss_bytes: int | None


@with_config(_CLOSED)
class PlacementShape(TypedDict):
    """Where the quantizable nodes ran."""

    integer: int
    float: int
    elsewhere: int
    notes: list[str]


@with_config(_CLOSED)
class FactShape(TypedDict):
    """A number that the toolchain gave."""

    value: float | None
    unit: str
    kind: Kind


@with_config(_CLOSED)
class StepShape(TypedDict):
    """One step on the way from the float model to the engine; a metric only where all rows went through it."""

    name: str
    metric: float | None
    sqnr_db: float | None
    note: str


@with_config(_CLOSED)
class AttributionShape(TypedDict):
    """Where the loss comes from: SQNR is over `rows` first rows of the role that judged the engine."""

    role: str
    rows: int
    steps: list[StepShape]


@with_config(_CLOSED)
class RemarkShape(TypedDict):
    """What the calibration lint found about an input, a tensor or the rows."""

    kind: str
    subject: str
    message: str


@with_config(_CLOSED)
class CellShape(TypedDict):
    """One model × recipe × target."""

    key: str
    model: str
    recipe: str
    target: str
    cached: bool
    status: Status
    reason: str
    hint: str
    verdict: Decision | None
    gates: dict[str, GateShape]
    engine: EngineShape | None
    metrics: MetricsShape
    profile: ProfileShape | None
    placement: PlacementShape | None
    facts: dict[str, FactShape]
    attribution: AttributionShape | None
    lint: list[RemarkShape]


@with_config(_CLOSED)
class PromotedShape(TypedDict):
    """A version and the alias that points to it."""

    model: str
    version: str
    alias: str
    engine: str
    note: str


@with_config(_CLOSED)
class TrialShape(TypedDict):
    """One candidate of a search, judged on the search rows alone."""

    model: str
    target: str
    recipe: str
    chosen: bool
    reason: str
    value: float | None
    reference: float | None
    ratio: float | None
    ratio_high: float | None
    sqnr_db: float | None
    size_bytes: int | None
    tried: str


@with_config(_CLOSED)
class RunShape(TypedDict):
    """A whole run, as `qpipe run --json` prints it."""

    run_id: str
    mlflow_run_id: str | None
    pipeline: str
    exit_code: int
    warnings: list[str]
    cells: list[CellShape]
    promoted: list[PromotedShape]
    search: list[TrialShape]


@with_config(_CLOSED)
class ErrorShape(TypedDict):
    """A problem that the user can act on."""

    message: str
    hint: str
    code: int


@with_config(_CLOSED)
class FailureShape(TypedDict):
    """What `--json` prints instead when a run could not start."""

    error: ErrorShape


@with_config(_CLOSED)
class PipelineShape(TypedDict):
    """One file of a command that was given several: its run, or why it has none."""

    file: str
    exit_code: int
    run: RunShape | None
    error: ErrorShape | None


@with_config(_CLOSED)
class FleetShape(TypedDict):
    """What `--json` prints of several pipeline files."""

    exit_code: int
    pipelines: list[PipelineShape]


def result_schema() -> dict[str, object]:
    """JSON Schema (2020-12) of what `qpipe run --json` prints: a run, an error, or what became of several files."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(RunShape | FailureShape | FleetShape).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "qpipe run --json", **schema}
