"""A pipeline as the user's file says it, after every name and number was checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from qpipe.records.cell import Timing
from qpipe.records.data import DataSpec
from qpipe.records.recipe import StageSpec
from qpipe.records.target import Target
from qpipe.records.verdict import GateSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where one model comes from: exactly one of `path` and `uri`."""

    name: str
    path: Path | None = None
    uri: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeSpec:
    """A recipe as demanded: a built-in one by name (`stages` is None: the target's scheme decides), or stages."""

    name: str
    stages: tuple[StageSpec, ...] | None = None
    targets: tuple[str, ...] | None = field(default=None, compare=False)
    """Targets of the pipeline that it is asked for on, None for all: no part of what it is."""

    def is_for(self, target: str) -> bool:
        """Whether the pipeline asks for it on that target."""
        return self.targets is None or target in self.targets


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpec:
    """Choose one finalist on the search rows; it alone meets the gate rows."""

    objective: str = "latency"
    trials: int | None = None
    minutes: float | None = None
    candidates: tuple[RecipeSpec, ...] = ()
    tune: bool | None = None
    """Whether a sampler may turn the static recipe with what is left of the budget; None: where no candidates are
    written down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromoteSpec:
    """What a passing engine becomes; both are patterns over `{model}`, `{target}` and `{recipe}`."""

    model: str = "{model}-{target}"
    alias: str = "champion"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingSpec:
    """Where runs go; None takes MLFLOW_TRACKING_URI, else sqlite in the working folder."""

    uri: str | None = None
    experiment: str = "qpipe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One pipeline file."""

    name: str
    folder: Path
    """Folder of the file: relative paths start here."""
    models: tuple[ModelSource, ...]
    metric: str
    """Name of a registered metric, or `module:function`."""
    task: str | None
    data: DataSpec
    targets: tuple[Target, ...]
    recipes: tuple[RecipeSpec, ...]
    gates: tuple[GateSpec, ...]
    search: SearchSpec | None = None
    promote: PromoteSpec | None = None
    tracking: TrackingSpec = field(default_factory=TrackingSpec)
    timing: Timing = field(default_factory=Timing)
    store: str | None = None
    """Folder or URL of the store; None takes QPIPE_STORE, else `.qpipe` in the working folder."""
