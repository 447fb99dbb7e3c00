"""Metrics of the user's own: `module:function`, found with the pipeline's folder first on the import path.

The function gets the outputs and the data columns by name as arrays of all rows, rows first, and returns one score
per row. A column is read when the function asks for it.
It may carry `higher_is_better` (default True) and `bounds` (default unbounded) as attributes. A score of NaN counts
as the worst one where the row's outputs are not finite, and is refused elsewhere: it is undefined there for both
models, and rows that can lose nothing would water a drop down.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import ConfigError, DataError, QpipeError
from qpipe.metrics import weighted
from qpipe.metrics.classification import per_row
from qpipe.metrics.columns import and_more, finite_rows, first_output
from qpipe.plugins.calls import one_line
from qpipe.plugins.metric import Metric, Rows, Units

UNDEFINED = "its outputs are finite: return what such a row is worth (1 where nothing is to be found), or leave it out"
ROUNDING = 1e-6
"""Of the span, by which a score may lie beyond its best."""


def load_metric(name: str, folder: Path | None) -> Metric:
    """The metric `module:function`, imported now.

    Raises:
        ConfigError: there is no such module or function, or its attributes are not what they should be.
    """
    from qpipe.data.functions import load_function

    score = load_function(name, folder)
    higher, bounds = bool(getattr(score, "higher_is_better", True)), _bounds(score, name)
    return Metric(
        name=name,
        summary=(inspect.getdoc(score) or f"user metric {name}").partition("\n")[0],
        kind="score",
        measure=partial(_measure, score=score, name=name, higher=higher, bounds=bounds),
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


def _measure(
    rows: Rows, *, score: Callable[..., object], name: str, higher: bool, bounds: tuple[float, float]
) -> Units:
    scores = _scores(rows, score, name)
    count = len(first_output(rows))
    if scores.shape != (count,) or scores.dtype.kind not in "fiub":
        raise DataError(
            f"metric {name} returned {scores.dtype}{list(scores.shape)} for {count} rows",
            hint="it returns one number per row",
        )
    found = scores.astype(np.float64)
    low, high = bounds
    _refuse(np.isnan(found) & _all_finite(rows), found, name, UNDEFINED)
    # What is worse than the worst is an engine's own fault; better than the best is a mistake in score or bounds.
    slack = ROUNDING * (high - low) if np.isfinite(high - low) else 0.0
    better = found > high + slack if higher else found < low - slack
    _refuse(better, found, name, f"its bounds are {low:g} and {high:g}: bounds = (smallest, largest) that is possible")
    return per_row(np.clip(np.where(np.isnan(found), low if higher else high, found), low, high))


def _refuse(bad: NDArray[np.bool_], found: NDArray[np.float64], name: str, hint: str) -> None:
    if not bad.any():
        return
    row = int(np.argmax(bad))
    value = "NaN" if np.isnan(found[row]) else f"{found[row]:g}"
    raise DataError(f"metric {name} is {value} for row {row}{and_more(bad)}", hint=hint)


def _scores(rows: Rows, score: Callable[..., object], name: str) -> NDArray[np.generic]:
    try:
        return np.asarray(score(dict(rows.outputs), rows.columns))
    except QpipeError:
        raise
    except Exception as error:
        there = f"outputs: {', '.join(rows.outputs)}; columns: {', '.join(rows.columns) or 'none'}"
        raise DataError(f"metric {name} raised {one_line(error)}", hint=f"it is given {there}") from error


def _all_finite(rows: Rows) -> NDArray[np.bool_]:
    """Which rows have no NaN and no infinity in any output of numbers, [n]."""
    good = np.ones(len(first_output(rows)), np.bool_)
    for output in rows.outputs.values():
        good &= finite_rows(output.astype(np.float64)) if output.dtype.kind == "f" else True
    return good


def _mean(values: NDArray[np.float64]) -> float:
    return float(values[:, 0].mean()) if len(values) else float("nan")


def _means(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return weighted.means(values[:, 0], counts)
