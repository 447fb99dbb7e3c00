"""What a pipeline file may say, as pydantic models: the only place where text is not yet a record."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    JsonValue,
    Tag,
    model_validator,
)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
FUNCTION = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"

Name = Annotated[str, Field(pattern=NAME, max_length=100)]
Function = Annotated[str, Field(pattern=FUNCTION)]
Count = Annotated[int, Field(ge=1)]
Kind = Literal["measured", "estimated", "emulated", "simulated"]


class Text(BaseModel):
    """Base of all sections: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _kind_of(value: object) -> str:
    if isinstance(value, str):
        return "(text)"
    if isinstance(value, list):
        return "(list)"
    return "(number)" if isinstance(value, int | float) else "(mapping)"


def _positive(values: float | tuple[float, ...]) -> float | tuple[float, ...]:
    if any(value <= 0 for value in (values if isinstance(values, tuple) else (values,))):
        raise ValueError("std must be above 0")
    return values


Numbers = Annotated[
    Annotated[FiniteFloat, Tag("(number)")] | Annotated[tuple[FiniteFloat, ...], Field(min_length=1), Tag("(list)")],
    Discriminator(_kind_of),
]


class ModelText(Text):
    """`{path: FILE.onnx}` or `{uri: "models:/…"}`."""

    name: Name | None = None
    path: str | None = None
    uri: Annotated[str, Field(pattern=r"^(models|runs):/.+")] | None = None


class RoleText(Text):
    """The rows of one role."""

    npz: str | None = None
    fn: Function | None = None
    samples: Count | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    slices: tuple[str, ...] = ()
    group: str | None = None


class PreprocessText(Text):
    """(x · scale − mean) / std in float32."""

    scale: FiniteFloat = 1.0
    mean: Numbers = 0.0
    std: Annotated[Numbers, AfterValidator(_positive)] = 1.0


class DataText(Text):
    """Rows, and how their columns become model inputs."""

    inputs: dict[str, str] = {}
    label: str | None = None
    output: str | None = None
    calibration: RoleText | None = None
    search: RoleText | None = None
    gate: RoleText
    preprocess: dict[str, PreprocessText] = {}
    trim: str | None = None
    batch: Count = 16
    overlap: Literal["error", "drop-from-search"] = "error"


class HostText(Text):
    """Where engines run, if not on this machine: one of `{adb: SERIAL}`, `{ssh: user@host}`, `{emulator: NAME}`.

    `rows` beside an emulator: so many rows of the role are run there, drawn by the role's seed.
    """

    adb: str | None = None
    ssh: str | None = None
    emulator: str | None = None
    rows: Count | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        named = [name for name in ("adb", "ssh", "emulator") if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(
                "name one place: {adb: SERIAL}, {ssh: user@host} or {emulator: NAME}; or write host: local"
            )
        if self.rows is not None and self.emulator is None:
            raise ValueError("rows belongs to an emulator: a device runs all rows; data.gate has samples")
        return self


HostEntry = Annotated[
    Annotated[Literal["local"], Tag("(text)")] | Annotated[HostText, Tag("(mapping)")], Discriminator(_kind_of)
]


class LimitsText(Text):
    """What one child process may use."""

    timeout_s: Annotated[FiniteFloat, Field(gt=0)] = 600.0
    memory_bytes: Annotated[int, Field(ge=2**20)] = 8 * 2**30


class TargetFileText(Text):
    """A target file."""

    name: Name
    backend: Name
    summary: str = ""
    arch: str = ""
    isa: tuple[Annotated[str, Field(pattern=r"^[a-z0-9_]+(\|[a-z0-9_]+)*$")], ...] = ()
    scheme: str = ""
    batch_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    threads: Count = 1
    host: HostEntry = "local"
    limits: LimitsText = LimitsText()
    options: dict[str, JsonValue] = {}


class TargetVariantText(Text):
    """A target of the pipeline's own: another one (`base`) with some keys changed."""

    name: Name
    base: str
    summary: str | None = None
    isa: tuple[str, ...] | None = None
    scheme: str | None = None
    batch_sizes: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    threads: Count | None = None
    host: HostEntry | None = None
    limits: LimitsText | None = None
    options: dict[str, JsonValue] | None = None


TargetText = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[TargetVariantText, Tag("(mapping)")], Discriminator(_kind_of)
]

StageText = Annotated[
    Annotated[str, Tag("(text)")]
    | Annotated[dict[str, dict[str, JsonValue] | None], Field(min_length=1, max_length=1), Tag("(mapping)")],
    Discriminator(_kind_of),
]


class RecipeText(Text):
    """A recipe of the pipeline's own, a built-in one for some targets, or a search in its place."""

    name: Name | None = None
    stages: Annotated[tuple[StageText, ...], Field(min_length=1)] | None = None
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    search: SearchText | None = None


RecipeEntry = Annotated[
    Annotated[str, Tag("(text)")] | Annotated[RecipeText, Tag("(mapping)")], Discriminator(_kind_of)
]


class BudgetText(Text):
    """What a search may spend."""

    trials: Count | None = None
    minutes: Annotated[FiniteFloat, Field(gt=0)] | None = None


class SearchText(Text):
    """One finalist, chosen on the search rows."""

    objective: Literal["latency", "size"] = "latency"
    budget: BudgetText = BudgetText()
    candidates: tuple[RecipeEntry, ...] = ()
    tune: bool | None = None


class SearchOnlyText(Text):
    """`recipes: {search: {…}}`."""

    search: SearchText


class GateText(BaseModel):
    """A gate: these keys, and those of its type."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, JsonValue]

    type: str | None = None
    required: bool = True
    recipes: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    accept: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("measured",)


class GatesFileText(Text):
    """A file of gates alone, for `qpipe gate RUN_ID --gates FILE`."""

    gates: Annotated[dict[Name, GateText | None], Field(min_length=1)]


class MetricText(Text):
    """A metric of the user's own."""

    fn: Function


class PromoteText(Text):
    """What a passing engine becomes."""

    model: str = "{model}-{target}"
    alias: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=200)] = "champion"


class TrackingText(Text):
    """Where runs go."""

    uri: str | None = None
    experiment: Annotated[str, Field(min_length=1)] = "qpipe"


class ProfileText(Text):
    """The measuring protocol."""

    processes: Annotated[int, Field(ge=2)] = 5
    rounds: Count = 40
    blocks: Count = 4
    min_seconds: Annotated[FiniteFloat, Field(ge=0)] = 1.0
    max_rounds: Count = 4000
    warmup: Annotated[int, Field(ge=0)] = 5
    memory_processes: Count = 3


class PipelineText(Text):
    """A pipeline file."""

    base: str | None = None
    name: Name
    model: ModelText | None = None
    models: Annotated[tuple[ModelText, ...], Field(min_length=1)] | None = None
    task: str | None = None
    metric: (
        Annotated[Annotated[str, Tag("(text)")] | Annotated[MetricText, Tag("(mapping)")], Discriminator(_kind_of)]
        | None
    ) = None
    data: DataText
    targets: Annotated[tuple[TargetText, ...], Field(min_length=1)]
    recipes: Annotated[
        Annotated[tuple[RecipeEntry, ...], Field(min_length=1), Tag("(list)")]
        | Annotated[SearchOnlyText, Tag("(mapping)")],
        Discriminator(_kind_of),
    ]
    gates: dict[Name, GateText | None] = {}
    promote: PromoteText | None = None
    tracking: TrackingText = TrackingText()
    profile: ProfileText = ProfileText()
    store: str | None = None
