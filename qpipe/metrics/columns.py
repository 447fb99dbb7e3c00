"""Outputs and labels as metrics want them, with errors that name the row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import DataError
from qpipe.plugins.metric import Rows

OWN = "metric: {fn: 'module:function'}, one score per row"
"""For labels that no built-in metric reads."""


def first_output(rows: Rows) -> NDArray[np.generic]:
    """The first output, rows first: the model's own, or the one that `data.output` names.

    Raises:
        DataError: the model gave no output.
    """
    for output in rows.outputs.values():
        return output
    raise DataError("the model gave no output to measure", hint="a model needs at least one output")


def class_scores(rows: Rows, metric: str) -> NDArray[np.float64]:
    """The first output as class scores, float64 [n, classes].

    Raises:
        DataError: it does not have the shape [rows, classes] with at least two classes.
    """
    output = first_output(rows)
    if output.ndim != 2 or output.shape[1] < 2 or output.dtype.kind not in "fiu":
        raise DataError(
            f"{metric} needs class scores [rows, classes], the judged output is {output.dtype}{list(output.shape)}",
            hint=f"data.output: NAME judges another output; {_otherwise(output)}",
        )
    return output.astype(np.float64)


def _otherwise(output: NDArray[np.generic]) -> str:
    """Which metric an output that holds no class scores of its rows may have."""
    if output.size == len(output):
        return "of one score per row metric: auc is measured, or {fn: 'module:function'} with a threshold of yours"
    return "of pixels or tokens metric: {fn: 'module:function'} gives each row's share of right ones"


def flat_output(rows: Rows) -> NDArray[np.float64]:
    """The first output with one row each, float64 [n, d]."""
    output = first_output(rows)
    return output.reshape(len(output), -1).astype(np.float64)


def finite_rows(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows have no NaN and no infinity, [n]."""
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))


def column(rows: Rows, name: str, metric: str) -> NDArray[np.generic]:
    """One data column with as many rows as the outputs.

    Raises:
        DataError: there is no such column, or it has another number of rows.
    """
    if name not in rows.columns:
        there = ", ".join(sorted(rows.columns)) or "none"
        raise DataError(f"{metric} needs the column '{name}'; the data has: {there}", hint="add it, or set data.label")
    found = rows.columns[name]
    if len(found) != len(first_output(rows)):
        raise DataError(f"column '{name}' has {len(found)} rows, the outputs have {len(first_output(rows))}")
    return found


def label_column(rows: Rows, metric: str, default: str = "") -> NDArray[np.generic]:
    """The label column that the pipeline names, or `default`.

    Raises:
        DataError: neither is there.
    """
    name = rows.label or default
    if not name:
        raise DataError(f"{metric} needs labels and the pipeline names no label column", hint="set data.label")
    return column(rows, name, metric)


def class_labels(rows: Rows, classes: int, metric: str) -> NDArray[np.int64]:
    """Labels as class numbers, int64 [n], each in 0 … classes − 1.

    Raises:
        DataError: a label is not an integer or out of range; the message names the row and the value.
    """
    found = label_column(rows, metric)
    if found.size != len(found):
        raise DataError(
            f"labels have the shape {list(found.shape)}, {metric} needs one class number per row",
            hint=f"one-hot ones: their argmax; several classes a row: {OWN}",
        )
    if found.dtype.kind not in "fiub":
        raise DataError(
            f"labels are {found.dtype}, {metric} needs class numbers",
            hint="0 … classes − 1 as int64, in the model's own order: [CLASSES.index(one) for one in labels]",
        )
    flat = found.reshape(-1)
    values = flat.astype(np.float64)
    _refuse(np.isfinite(values) & (values == np.floor(values)), flat, "is not an integer", classes)
    _refuse((values >= 0) & (values < classes), flat, "is out of range", classes)
    return values.astype(np.int64)


def _refuse(good: NDArray[np.bool_], labels: NDArray[np.generic], what: str, classes: int) -> None:
    if good.all():
        return
    row = int(np.argmin(good))
    raise DataError(
        f"label {labels[row]} of row {row} {what}: the model has {classes} classes{and_more(~good)}",
        hint=f"labels are class numbers from 0 to {classes - 1}; leave rows without a label out of the gate rows",
    )


def and_more(bad: NDArray[np.bool_]) -> str:
    """How many rows are like the one that a message names; empty where it is alone."""
    more = int(bad.sum()) - 1
    return f" (and {more:,} more rows)" if more else ""


def targets(rows: Rows, metric: str) -> NDArray[np.float64]:
    """Labels as numbers in the order of the flattened output, float64 [n, d].

    Raises:
        DataError: another shape (axes in another order too), not numbers, or not finite (the row is named).
    """
    found, output = label_column(rows, metric), first_output(rows)
    if found.dtype.kind not in "fiub":
        raise DataError(f"labels are {found.dtype}, {metric} needs numbers", hint="float32 or float64")
    wanted = found.reshape(len(found), -1).astype(np.float64)
    if found.size != output.size:
        raise DataError(
            f"labels have {wanted.shape[1]} numbers per row, the judged output has {output[:1].size}",
            hint=f"one target per number of the output (data.output: NAME judges another one), or {OWN}",
        )
    if not _same_order(found.shape[1:], output.shape[1:]):
        raise DataError(
            f"labels have the shape {list(found.shape)}, the judged output {list(output.shape)}",
            hint="axes in the output's order: numpy.transpose",
        )
    good = finite_rows(wanted)
    if not good.all():
        raise DataError(
            f"the label of row {int(np.argmin(good))} is not finite{and_more(~good)}",
            hint=f"leave rows without a target out of the gate rows; where some of several are missing: {OWN}",
        )
    return wanted


def _same_order(labels: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether flattening both meets the same numbers: one is flat, or they are alike but for axes of one."""
    ours, theirs = (tuple(size for size in shape if size != 1) for shape in (labels, output))
    return ours == theirs or min(len(ours), len(theirs)) < 2
