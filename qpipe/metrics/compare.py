"""Units of labelled and unlabelled rows, and the agreement of two runs per row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.metrics.classification import NO_CLASS, top_class
from qpipe.metrics.columns import first_output, flat_output
from qpipe.metrics.regression import row_cosine
from qpipe.plugins.metric import Metric, Rows, Units


def is_labelled(metric: Metric, rows: Rows) -> bool:
    """Whether these rows have what the metric is measured against."""
    return not metric.needs_label or (rows.label or metric.label) in rows.columns


def measure_units(metric: Metric, rows: Rows) -> Units:
    """The metric's units; for rows without labels one empty unit per row, [rows, 0].

    Raises:
        DataError: labels or columns that the metric cannot use; the row is named.
    """
    if rows.label is None and not is_labelled(metric, rows):
        count = len(first_output(rows))
        return Units(values=np.empty((count, 0)), rows=np.arange(count, dtype=np.int64))
    return metric.measure(rows)


def compare_rows(metric: Metric, engine: Rows, reference: Rows) -> NDArray[np.float64]:
    """Agreement of two runs over the same rows, float64 [rows].

    Classifiers: 1 where the top class is the same, else 0. Others: the cosine of the first outputs, −1 … 1.
    Rows that are not finite disagree (0, or −1). One number per row has no direction, its cosine is its sign: NaN.
    """
    if metric.classifies:
        said, meant = top_class(engine, metric.name), top_class(reference, metric.name)
        return np.asarray((said == meant) & (said != NO_CLASS), dtype=np.float64)
    ours, theirs = flat_output(engine), flat_output(reference)
    if theirs.shape[1] == 1:
        return np.full(len(theirs), np.nan)
    return row_cosine(ours, theirs)
