"""Mixed precision by search: candidates are built and measured, and the fastest one that is good enough wins.

Nothing here knows how to build or measure: the caller gives functions, and sees to it that the search set is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When the search stops; the candidate at work is finished."""

    trials: int = 8
    minutes: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Generic[C]):
    """One candidate as measured, or why it could not be."""

    candidate: C
    latency_ratio: float | None
    """Latency over that of the float engine; below 1 is faster."""
    metric: float | None
    reason: str = ""

    @property
    def measured(self) -> bool:
        """Whether both numbers are there."""
        return self.latency_ratio is not None and self.metric is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[C]):
    """The winner (None: the float model stays), every trial, and the reason in words."""

    winner: Trial[C] | None
    trials: tuple[Trial[C], ...]
    reason: str
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures(Generic[C]):
    """How the caller measures a candidate; either function may raise the errors in `expected`."""

    latency_ratio: Callable[[C], float]
    metric: Callable[[C], float]
    expected: tuple[type[Exception], ...] = field(default=())


def search(
    candidates: Sequence[C], measures: Measures[C], budget: Budget, *, reference: float, margin: float
) -> Found[C]:
    """Try candidates in order within the budget; the fastest whose metric is at least `reference − margin` wins.

    A candidate that is not faster than float never wins. Larger metrics are better.
    """
    begun = time.monotonic()
    trials: list[Trial[C]] = []
    for candidate in candidates[: max(budget.trials, 0)]:
        if trials and time.monotonic() - begun > budget.minutes * 60:
            break
        trials.append(_try(candidate, measures))
    skipped = len(candidates) - len(trials)
    good = [trial for trial in trials if trial.measured and (trial.metric or 0.0) >= reference - margin]
    fast = [trial for trial in good if (trial.latency_ratio or 0.0) < 1.0]
    if fast:
        winner = min(fast, key=lambda trial: trial.latency_ratio or 0.0)
        reason = f"fastest of {len(fast)} that are faster than float and within the margin"
        return Found(winner=winner, trials=tuple(trials), reason=reason, skipped=skipped)
    return Found(winner=None, trials=tuple(trials), reason=_why_none(trials, good), skipped=skipped)


def _try(candidate: C, measures: Measures[C]) -> Trial[C]:
    try:
        metric = measures.metric(candidate)
        return Trial(candidate=candidate, latency_ratio=measures.latency_ratio(candidate), metric=metric)
    except measures.expected as error:
        return Trial(candidate=candidate, latency_ratio=None, metric=None, reason=str(error))


def _why_none(trials: Sequence[Trial[C]], good: Sequence[Trial[C]]) -> str:
    if not trials:
        return "no candidate was tried"
    if good:
        ratio = min(trial.latency_ratio or 0.0 for trial in good)
        return f"the fastest candidate within the margin takes {ratio:.2f} of the float latency: float stays"
    if any(trial.measured for trial in trials):
        return "no candidate stays within the margin: float stays"
    return f"no candidate could be measured ({trials[0].reason}): float stays"
