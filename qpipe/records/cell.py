"""A cell: one model × one recipe × one target, with the keys that name its work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qpipe.records.data import DataSpec, RoleName
from qpipe.records.model import Model
from qpipe.records.recipe import Recipe
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredient:
    """One thing that a key is made of, e.g. ("calibration data", "3f2a…")."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A digest over its ingredients, which are kept so that a miss can be explained."""

    digest: str
    ingredients: tuple[Ingredient, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The measuring protocol of a profile."""

    processes: int = 5
    rounds: int = 40
    """Interleaved rounds per process, at least; more until `min_seconds` are spent."""
    blocks: int = 4
    min_seconds: float = 1.0
    max_rounds: int = 4000
    warmup: int = 5
    memory_processes: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One demand: quantize this model by this recipe for this target, and measure the engine."""

    model: Model
    recipe: Recipe
    target: Target
    scheme: Scheme
    data: DataSpec
    metric: str
    """Name of a registered metric, or `module:function` of the user's."""
    folder: Path
    """Folder of the pipeline file: first on the import path of the user's functions."""
    profile: bool
    """Whether the engine is timed: a run can be asked to leave that out."""
    timing: Timing
    prepare: Key
    build: Key
    measure: Key
    role: RoleName = "gate"
    """Whose rows judge the engine: `search` for candidates of a search, which never see the gate rows."""

    @property
    def key(self) -> str:
        """Names the whole cell: its measure key covers the other two."""
        return self.measure.digest

    @property
    def label(self) -> str:
        """`model/recipe/target`, as printed everywhere; candidates of a search say so."""
        label = f"{self.model.name}/{self.recipe.name}/{self.target.name}"
        return label if self.role == "gate" else f"{label} ({self.role})"
