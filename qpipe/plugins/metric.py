"""Metrics: from outputs and labels to units, and from units to one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MetricKind = Literal["binary", "score", "corpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Outputs and columns of all rows of one role, in order."""

    outputs: Mapping[str, NDArray[np.generic]]
    """Model outputs by name, in the model's order, rows first."""
    columns: Mapping[str, NDArray[np.generic]]
    """Data columns that are not inputs: label, group, slice columns."""
    label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What a metric aggregates: one entry per row, or per pair of rows."""

    values: NDArray[np.float64]
    """[n, k]; `binary`: k = 1 of 0 and 1; `score`: k = 1; `corpus`: whatever `aggregate` needs."""
    rows: NDArray[np.int64]
    """[n], the first row of each unit: slices and groups are looked up there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. `measure` may raise DataError for labels out of range, naming the row."""

    name: str
    summary: str
    kind: MetricKind
    measure: Callable[[Rows], Units]
    aggregate: Callable[[NDArray[np.float64]], float]
    """From units [n, k] to the metric; NaN where it is undefined (a constant column for Spearman)."""
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest possible value: a margin must lie inside the span."""
    needs_label: bool = True
    strata: int | None = None
    """Column of `values` whose classes are kept in a bootstrap (AUC), or None."""
    equal_classes: int | None = None
    """Column of `values` with classes that weigh alike, however rare they are (macro-F1), or None."""
    label: str = ""
    """Column that serves as label where the pipeline names none (`score` for pairs), or empty."""
    classifies: bool = False
    """The first output holds class scores: agreement compares the top class, else it is the cosine."""
    guess: Callable[[Rows], float] | None = None
    """What guessing would be worth on such rows (accuracy of K classes: 1/K), or None where that is not known."""
    flip_bound: bool = False
    """True where the drop is at most the share of rows whose top class differs (accuracy): judges without labels."""
    aggregate_weighted: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]] | None = None
    """The same for many resamples at once: units [n, k] and counts per unit [b, n] to [b]; None loops."""
