"""A recipe: an ordered list of stages with parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

REFERENCE = "none"
"""The recipe that is the float model itself: built and measured, never gated, never promoted."""

BUILTIN_RECIPES: tuple[str, ...] = (
    REFERENCE,
    "int8",
    "int8-float-stem",
    "dynamic",
    "fp16",
    "bf16",
    "int4",
    "nf4",
    "weight-only-int8",
    "kmeans",
)
"""Recipes that need no writing: the target's scheme gives their stages."""
CALIBRATED_RECIPES: tuple[str, ...] = ("int8", "int8-float-stem")
"""Those of them that read calibration rows."""
SIZE_RECIPES: tuple[str, ...] = ("kmeans",)
"""Those that make the file smaller and nothing faster: a search tries them only when it is told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """One step of preparation by name, with its parameters as written."""

    name: str
    params: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named list of stages; `none` has no stages."""

    name: str
    stages: tuple[StageSpec, ...]

    @property
    def is_reference(self) -> bool:
        """Whether this is the float model as given."""
        return self.name == REFERENCE
