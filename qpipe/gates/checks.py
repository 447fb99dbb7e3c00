"""Why parameters of a gate cannot be meant: one sentence, or None."""

from __future__ import annotations

import math
from typing import ClassVar, Protocol

from qpipe.plugins.metric import Metric

STRICT: dict[str, str] = {"extra": "forbid"}
"""What parameters tell pydantic: an unknown key is an error."""


class Comparing(Protocol):
    """Parameters of a gate that compares with the float model."""

    __pydantic_config__: ClassVar[dict[str, str]]

    @property
    def metric(self) -> str:
        """Name of the metric, or empty for the pipeline's."""
        ...

    @property
    def margin(self) -> float:
        """The drop that is allowed, in the metric's unit."""
        ...

    @property
    def confidence(self) -> float:
        """Of each one-sided bound."""
        ...


def comparing_problem(params: Comparing, metric: Metric) -> str | None:
    """Why metric, margin or confidence cannot be meant."""
    return (
        metric_problem(params.metric, metric)
        or margin_problem(params.margin, metric)
        or confidence_problem(params.confidence)
    )


def metric_problem(name: str, metric: Metric) -> str | None:
    """A gate may repeat the pipeline's metric by name; it cannot ask for another."""
    if name in ("", metric.name):
        return None
    return f"metric is '{name}', but the pipeline measures '{metric.name}'"


def margin_problem(margin: float, metric: Metric) -> str | None:
    """A margin lies above 0 and below the span of its metric."""
    low, high = metric.bounds
    if not math.isfinite(margin):
        return f"margin is {margin}, it must be a finite number"
    if margin <= 0:
        return f"margin is {margin:g}, it must be above 0: the drop that is allowed, in {metric.name}'s own unit"
    if margin >= high - low:
        return f"margin is {margin:g}, but {metric.name} only spans {low:g} to {high:g}: anything would pass"
    return None


def share_problem(key: str, value: float, *, least: float = 0.0) -> str | None:
    """A share lies between `least` and 1, without its ends."""
    if not least < value < 1:
        return f"{key} is {value:g}, it must lie between {least:g} and 1"
    return None


def confidence_problem(confidence: float) -> str | None:
    """Of a one-sided bound, which at one half or less would lie on the other side of the estimate."""
    return share_problem("confidence", confidence, least=0.5)


def positive_problem(key: str, value: float | None) -> str | None:
    """A limit is a finite number above 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        return f"{key} is {value:g}, it must be a finite number above 0"
    return None
