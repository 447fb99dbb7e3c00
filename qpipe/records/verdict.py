"""Gates and what they decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from qpipe.records.engine import Kind


class Decision(StrEnum):
    """Three values; nothing unmeasured is ever a PASS."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """A gate as the pipeline asks for it."""

    name: str
    """The key in the pipeline file; unique."""
    type: str
    """The gate type that decides, equal to `name` unless `type:` says otherwise."""
    params: Mapping[str, object] = field(default_factory=dict)
    required: bool = True
    recipes: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    accept: tuple[Kind, ...] = ("measured",)

    def applies(self, *, recipe: str, target: str) -> bool:
        """Whether this gate judges cells of that recipe and target."""
        return (self.recipes is None or recipe in self.recipes) and (self.targets is None or target in self.targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceVerdict:
    """One slice of a verdict; `screen` is advice, never part of the decision."""

    name: str
    decision: Decision
    observed: float | None
    low: float | None
    high: float | None
    n: int
    screen: bool = False
    """Whether the mid-p McNemar screen (Holm over slices) points at this slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one gate decided, with every number that it decided from."""

    gate: str
    decision: Decision
    reason: str
    observed: float | None = None
    low: float | None = None
    """One-sided lower bound at `alpha`."""
    high: float | None = None
    limit: float | None = None
    n: int | None = None
    alpha: float | None = None
    kind: Kind | None = None
    advice: str = ""
    required: bool = True
    slices: tuple[SliceVerdict, ...] = ()
    notes: tuple[str, ...] = ()
    """Marks that travel with a promotion, e.g. `agreement-only`."""


def overall(verdicts: tuple[Verdict, ...]) -> Decision:
    """FAIL if a required gate failed, else INCONCLUSIVE if one could not be decided or none is required, else PASS."""
    required = [verdict.decision for verdict in verdicts if verdict.required]
    if Decision.FAIL in required:
        return Decision.FAIL
    if not required or Decision.INCONCLUSIVE in required:
        return Decision.INCONCLUSIVE
    return Decision.PASS
