"""Metrics of the user's own: `module:function`, found with the pipeline's folder first on the import path.

The function gets the outputs and the data columns as dicts of arrays, rows first, and returns one score per row.
It may carry `higher_is_better` (default True) and `bounds` (default unbounded) as attributes. A score of NaN counts
as the worst one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import ConfigError, DataError
from qpipe.metrics import weighted
from qpipe.metrics.classification import per_row
from qpipe.metrics.columns import first_output
from qpipe.plugins.metric import Metric, Rows, Units


def load_metric(name: str, folder: Path | None) -> Metric:
    """The metric `module:function`, imported now.

    Raises:
        ConfigError: there is no such module or function, or its attributes are not what they should be.
    """
    from qpipe.data.functions import load_function

    score = load_function(name, folder)
    higher, bounds = bool(getattr(score, "higher_is_better", True)), _bounds(score, name)
    worst = bounds[0] if higher else bounds[1]
    return Metric(
        name=name,
        summary=(inspect.getdoc(score) or f"user metric {name}").partition("\n")[0],
        kind="score",
        measure=partial(_measure, score=score, name=name, worst=worst),
        aggregate=_mean,
        aggregate_weighted=_means,
        higher_is_better=higher,
        bounds=bounds,
        needs_label=False,
    )


def _bounds(score: Callable[..., object], name: str) -> tuple[float, float]:
    found: object = getattr(score, "bounds", (-np.inf, np.inf))
    match found:
        case (int() | float() as low, int() | float() as high) if low < high:
            return float(low), float(high)
        case _:
            raise ConfigError(f"metric {name}: bounds are {found!r}", hint="bounds = (smallest, largest)")


def _measure(rows: Rows, *, score: Callable[..., object], name: str, worst: float) -> Units:
    scores = np.asarray(score(dict(rows.outputs), dict(rows.columns)))
    count = len(first_output(rows))
    if scores.shape != (count,) or scores.dtype.kind not in "fiub":
        raise DataError(
            f"metric {name} returned {scores.dtype}{list(scores.shape)} for {count} rows",
            hint="it returns one number per row",
        )
    found = scores.astype(np.float64)
    return per_row(np.where(np.isnan(found), worst, found))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values[:, 0].mean()) if len(values) else float("nan")


def _means(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return weighted.means(values[:, 0], counts)
