"""Accuracy, top-k accuracy and macro-F1. A row whose outputs are not finite counts as wrong."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import DataError
from qpipe.metrics import weighted
from qpipe.metrics.columns import class_labels, class_scores, finite_rows
from qpipe.plugins.metric import Metric, Rows, Units

NO_CLASS = -1
"""What a row predicts whose outputs are not finite: never right."""


def top_class(rows: Rows, metric: str) -> NDArray[np.int64]:
    """The class with the largest score, int64 [n]; the first of equal ones; −1 where scores are not finite."""
    scores = class_scores(rows, metric)
    return np.where(finite_rows(scores), np.argmax(scores, axis=1), NO_CLASS).astype(np.int64)


def per_row(values: NDArray[np.float64]) -> Units:
    """Units of one row each: `values` [n] or [n, k]."""
    return Units(values=values.reshape(len(values), -1), rows=np.arange(len(values), dtype=np.int64))


def _top_k(rows: Rows, *, k: int, name: str) -> Units:
    scores = class_scores(rows, name)
    classes = scores.shape[1]
    if k >= classes:
        raise DataError(f"{name} of {classes} classes is always right", hint="use accuracy, or a smaller k")
    labels = class_labels(rows, classes, name)
    own = scores[np.arange(len(labels)), labels][:, None]
    # Equal scores rank by class number, so that top-1 is exactly argmax.
    ahead = (scores > own) | ((scores == own) & (np.arange(classes) < labels[:, None]))
    right = (ahead.sum(axis=1) < k) & finite_rows(scores)
    return per_row(right.astype(np.float64))


def _guess(rows: Rows, *, k: int, name: str) -> float:
    """The share of rows that k guesses among all classes get right, whatever the labels are."""
    return k / int(class_scores(rows, name).shape[1])


def _mean(values: NDArray[np.float64]) -> float:
    return float(values[:, 0].mean()) if len(values) else float("nan")


def _means(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return weighted.means(values[:, 0], counts)


def top_k(k: int) -> Metric:
    """Share of rows whose label is among the k largest scores; k = 1 is `accuracy`."""
    name = "accuracy" if k == 1 else f"top-{k}"
    summary = "share of rows whose largest score is the label's" if k == 1 else f"label among the {k} largest scores"
    return Metric(
        name=name,
        summary=summary,
        kind="binary",
        measure=partial(_top_k, k=k, name=name),
        aggregate=_mean,
        aggregate_weighted=_means,
        classifies=True,
        guess=partial(_guess, k=k, name=name),
        flip_bound=k == 1,
    )


def _predictions(rows: Rows) -> Units:
    scores = class_scores(rows, "macro-f1")
    labels = class_labels(rows, scores.shape[1], "macro-f1")
    return per_row(np.stack([top_class(rows, "macro-f1"), labels], axis=1).astype(np.float64))


def _macro_f1s(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 = 2·TP / (predicted + actual), its mean over classes that are predicted or actual in the resample."""
    if not len(values):
        return np.full(len(counts), np.nan)
    predicted, actual = values[:, 0].astype(np.int64), values[:, 1].astype(np.int64)
    classes = int(max(predicted.max(), actual.max())) + 1
    # Cells of the confusion table first: everything after works on a few of them instead of on all rows.
    cells, drawn = weighted.sums_by_code((predicted + 1) * classes + actual, np.ascontiguousarray(counts.T))
    said, true = cells // classes - 1, cells % classes
    hits, seen = np.zeros((classes, len(counts))), np.zeros((classes, len(counts)))
    np.add.at(hits, true[said == true], drawn[said == true])
    np.add.at(seen, true, drawn)
    np.add.at(seen, said[said >= 0], drawn[said >= 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.where(seen > 0, 2 * hits / seen, 0.0)
        return np.asarray(f1.sum(axis=0) / (seen > 0).sum(axis=0))


def _macro_f1(values: NDArray[np.float64]) -> float:
    return float(_macro_f1s(values, weighted.one(len(values)))[0])


def macro_f1() -> Metric:
    """Mean over classes of F1.

    Source: Sokolova & Lapalme 2009, table 3 (macro-averaging); as scikit-learn's `f1_score(average="macro")`.
    """
    return Metric(
        name="macro-f1",
        summary="mean of F1 over the classes",
        kind="corpus",
        measure=_predictions,
        aggregate=_macro_f1,
        aggregate_weighted=_macro_f1s,
        equal_classes=1,
        classifies=True,
    )
