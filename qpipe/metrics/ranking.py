"""Spearman of pairs and AUC: metrics of ranks. A row whose outputs are not finite leaves them undefined (NaN)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import DataError
from qpipe.metrics import weighted
from qpipe.metrics.classification import per_row
from qpipe.metrics.columns import class_labels, column, finite_rows, first_output, flat_output, label_column
from qpipe.metrics.regression import row_cosine
from qpipe.plugins.metric import Metric, Rows, Units

Floats = NDArray[np.float64]


def _pairs(rows: Rows) -> Units:
    pair, score = column(rows, "pair", "spearman"), label_column(rows, "spearman", "score")
    order = np.argsort(pair, kind="stable")
    names, starts, sizes = np.unique(pair[order], return_index=True, return_counts=True)
    if (sizes != 2).any():
        at = int(np.argmax(sizes != 2))
        raise DataError(
            f"pair {names[at]} has {sizes[at]} rows (first: row {order[starts[at]]}), spearman needs two of each pair",
            hint="both rows of a pair carry the same number in the column 'pair'",
        )
    first, second = order[starts], order[starts + 1]
    wanted = _scores(score, first, second, names)
    embeddings = flat_output(rows)
    good = finite_rows(embeddings)
    similarity = np.where(good[first] & good[second], row_cosine(embeddings[first], embeddings[second]), np.nan)
    back = np.argsort(first, kind="stable")
    return Units(values=np.stack([similarity, wanted], axis=1)[back], rows=first[back].astype(np.int64))


def _scores(
    score: NDArray[np.generic],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    names: NDArray[np.generic],
) -> Floats:
    if score.size != len(score) or score.dtype.kind not in "fiub":
        raise DataError(f"scores are {score.dtype}{list(score.shape)}, spearman needs one number per row")
    values = score.reshape(-1).astype(np.float64)
    good = np.isfinite(values[first]) & (values[first] == values[second])
    if not good.all():
        at = int(np.argmin(good))
        a, b = first[at], second[at]
        raise DataError(
            f"pair {names[at]}: rows {a} and {b} have the scores {values[a]:g} and {values[b]:g}",
            hint="both rows of a pair carry the same finite score",
        )
    return np.asarray(values[first])


def _spearmans(values: Floats, counts: Floats) -> Floats:
    """Pearson correlation of midranks (Spearman 1904; ties as Kendall 1945, and as `scipy.stats.spearmanr`)."""
    if not np.isfinite(values).all() or not len(values):
        return np.full(len(counts), np.nan)
    return weighted.rank_correlations(values[:, 0], values[:, 1], counts)


def _spearman(values: Floats) -> float:
    return float(_spearmans(values, weighted.one(len(values)))[0])


def spearman() -> Metric:
    """Spearman correlation between the cosine of two embeddings and the pair's score; one unit per pair.

    Rows of one pair share the column `pair`; the score is the label column, or `score` where none is named.
    """
    return Metric(
        name="spearman",
        summary="rank correlation between the cosine of a pair's embeddings and its score",
        kind="corpus",
        measure=_pairs,
        aggregate=_spearman,
        aggregate_weighted=_spearmans,
        bounds=(-1.0, 1.0),
        label="score",
    )


def _binary_scores(rows: Rows) -> Units:
    output = first_output(rows)
    if output.size == len(output):
        scores = output.reshape(-1).astype(np.float64)
    elif output.ndim == 2 and output.shape[1] == 2:
        scores = output[:, 1].astype(np.float64) - output[:, 0].astype(np.float64)
    else:
        raise DataError(
            f"auc needs one score per row, or two classes; the judged output has {list(output.shape)}",
            hint="data.output: NAME judges another one; several classes: metric: macro-f1; several labels a row: a "
            "function of yours, or a plugin's metric of the whole sample",
        )
    labels = class_labels(rows, 2, "auc")
    scores = np.where(np.isfinite(scores), scores, np.nan)
    return per_row(np.stack([scores, labels.astype(np.float64)], axis=1))


def _aucs(values: Floats, counts: Floats) -> Floats:
    """(Σ ranks of positives − P(P + 1)/2) / (P·N): Mann & Whitney 1947; Hanley & McNeil 1982."""
    if not np.isfinite(values).all() or not len(values):
        return np.full(len(counts), np.nan)
    drawn = np.ascontiguousarray(counts.T)
    positive = drawn[values[:, 1] == 1]
    p = positive.sum(axis=0)
    n = drawn.sum(axis=0) - p
    ranks = np.einsum("ij,ij->j", positive, weighted.midranks(values[:, 0], drawn)[values[:, 1] == 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((ranks - p * (p + 1) / 2) / (p * n))


def _auc(values: Floats) -> float:
    return float(_aucs(values, weighted.one(len(values)))[0])


def auc() -> Metric:
    """Area under the ROC curve of two classes; the output is one score per row, or two class scores."""
    return Metric(
        name="auc",
        summary="area under the ROC curve of two classes",
        kind="corpus",
        measure=_binary_scores,
        aggregate=_auc,
        aggregate_weighted=_aucs,
        strata=1,
    )
