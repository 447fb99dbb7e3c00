"""MAE and RMSE of numbers, and the cosine with target vectors.

A row whose outputs are not finite gets the worst value: infinity for the errors, −1 for the cosine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.measure import evaluation
from qpipe.metrics import weighted
from qpipe.metrics.classification import per_row
from qpipe.metrics.columns import finite_rows, flat_output, targets
from qpipe.plugins.metric import Metric, Rows, Units

Floats = NDArray[np.float64]


def _absolute(rows: Rows) -> Units:
    outputs, wanted = flat_output(rows), targets(rows, "mae")
    good = finite_rows(outputs)
    errors = np.abs(np.where(good[:, None], outputs, 0.0) - wanted).mean(axis=1)
    return per_row(np.where(good, errors, np.inf))


def _squared(rows: Rows) -> Units:
    outputs, wanted = flat_output(rows), targets(rows, "rmse")
    good = finite_rows(outputs)
    errors = np.square(np.where(good[:, None], outputs, 0.0) - wanted).mean(axis=1)
    return per_row(np.where(good, errors, np.inf))


def _cosine(rows: Rows) -> Units:
    return per_row(row_cosine(flat_output(rows), targets(rows, "cosine")))


def row_cosine(first: Floats, second: Floats) -> Floats:
    """Cosine of each row of [n, d] with its partner, [n], as `measure` has it; a row that is not finite has −1."""
    good = finite_rows(first) & finite_rows(second)
    a, b = np.where(good[:, None], first, 0.0), np.where(good[:, None], second, 0.0)
    return np.where(good, evaluation.row_cosine(a, b), -1.0)


def _mean(values: Floats) -> float:
    return float(values[:, 0].mean()) if len(values) else float("nan")


def _means(values: Floats, counts: Floats) -> Floats:
    return weighted.means(values[:, 0], counts)


def _root(values: Floats) -> float:
    return float(np.sqrt(_mean(values)))


def _roots(values: Floats, counts: Floats) -> Floats:
    return np.asarray(np.sqrt(_means(values, counts)))


def mae() -> Metric:
    """Mean absolute error, in the label's unit; several outputs of a row are averaged."""
    return Metric(
        name="mae",
        summary="mean absolute error",
        kind="score",
        measure=_absolute,
        aggregate=_mean,
        aggregate_weighted=_means,
        higher_is_better=False,
        bounds=(0.0, float("inf")),
    )


def rmse() -> Metric:
    """Root of the mean squared error, in the label's unit: not a mean over rows, so it is bootstrapped."""
    return Metric(
        name="rmse",
        summary="root of the mean squared error",
        kind="corpus",
        measure=_squared,
        aggregate=_root,
        aggregate_weighted=_roots,
        higher_is_better=False,
        bounds=(0.0, float("inf")),
    )


def cosine() -> Metric:
    """Mean cosine of each output with the target vector in the label column.

    For likeness to the float model itself there is the gate `agreement`, which needs no labels.
    """
    return Metric(
        name="cosine",
        summary="mean cosine with the target vectors of the label column",
        kind="score",
        measure=_cosine,
        aggregate=_mean,
        aggregate_weighted=_means,
        bounds=(-1.0, 1.0),
    )
