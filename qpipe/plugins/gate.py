"""Gates: pure functions from evidence to verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from qpipe.plugins.calls import one_line, prints_aside
from qpipe.plugins.code import is_ours
from qpipe.plugins.metric import Metric
from qpipe.records.evidence import Evidence
from qpipe.records.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

P = TypeVar("P")
Need = Literal["evaluation", "profile", "placement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alpha:
    """Error rates of one decision, after the ledger of looks has had its say."""

    to_pass: float = 0.05
    to_fail: float = 0.025


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Evidence with its arrays, as a gate sees it."""

    evidence: Evidence
    metric: Metric
    engine: NDArray[np.float64]
    """Units of the engine, [n, k]."""
    reference: NDArray[np.float64]
    """Units of the float model as given, in the same order."""
    groups: NDArray[np.int64] | None
    """Group of each unit, [n], where the pipeline has a group column."""
    slices: Mapping[str, NDArray[np.str_]]
    """Per slice column, the slice of each unit, [n]."""
    agreement: NDArray[np.float64]
    """Per unit (its first row): 1 where the top class equals the reference's (classification), else the cosine."""
    labelled: bool
    seed: int
    """Derived from gate-set digest and metric; not settable."""
    accept: tuple[str, ...]
    latency_ms: Mapping[int, tuple[NDArray[np.float64], ...]] = field(default_factory=dict)
    """Raw wall times of the engine by batch size: per process [rounds]; empty where no profile was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateType(Generic[P]):
    """A kind of gate. `params` is a frozen dataclass: its fields are the keys that a pipeline may write."""

    name: str
    summary: str
    params: type[P]
    decide: Callable[[Outcomes, P, Alpha], Verdict]
    needs: tuple[Need, ...] = ()
    check: Callable[[P, Metric], str | None] | None = None
    """A reason why these parameters cannot be meant for this metric (margin outside its range), or None."""

    def objection(self, params: P, metric: Metric) -> str:
        """Why these parameters cannot be meant: what `check` says, or how a plugin's check failed; empty for none."""
        if self.check is None:
            return ""
        try:
            with prints_aside():
                return self.check(params, metric) or ""
        except Exception as error:
            if is_ours(self.check):
                raise
            return f"the gate's own check raised {one_line(error)}"
