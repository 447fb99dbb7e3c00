"""Calibration lint: what is odd about the rows that ranges were taken from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from qpipe.plugins.backend import Tensors
from qpipe.quant.check import relative_difference, run_float
from qpipe.quant.ranges import clipped_share
from qpipe.quant.statistics import Statistics
from qpipe.records.quantization import QuantPlan

FEW_ROWS = 32
MUCH_CLIPPED = 0.01
"""Share of values outside a range, above which the lint speaks."""
BATCH_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One remark, about one subject (an input, a tensor, or the rows as a whole)."""

    kind: str
    subject: str
    message: str


def lint_calibration(
    statistics: Statistics, plan: QuantPlan | None = None, other: Statistics | None = None
) -> tuple[Finding, ...]:
    """Remarks on calibration statistics; `other` are statistics of rows that the model will meet (search or gate)."""
    found = [*_rows(statistics), *_inputs(statistics)]
    if plan is not None:
        found += _clipped(plan)
    if plan is not None and other is not None:
        found += _distant(plan, other)
    return tuple(found)


def _rows(statistics: Statistics) -> list[Finding]:
    found = []
    if statistics.rows < FEW_ROWS:
        message = f"only {statistics.rows} rows were used; ranges settle at about {4 * FEW_ROWS}"
        found.append(Finding(kind="few-rows", subject="calibration", message=message))
    for tensor in statistics.missing:
        message = "no row reached this tensor: what reads it stays float"
        found.append(Finding(kind="not-reached", subject=tensor, message=message))
    for item in statistics:
        if not item.finite:
            message = "NaN or infinity was met: what reads it stays float"
            found.append(Finding(kind="not-finite", subject=item.tensor, message=message))
    return found


def _inputs(statistics: Statistics) -> list[Finding]:
    return [
        Finding(kind="constant-input", subject=item.name, message=f"every value is {item.low:g}")
        for item in statistics.inputs
        if item.low == item.high
    ]


def _clipped(plan: QuantPlan) -> list[Finding]:
    return [
        Finding(
            kind="clipped",
            subject=spec.tensor,
            message=f"{100 * spec.clipped:.1f} % of calibration values lie outside [{spec.low:.4g}, {spec.high:.4g}]",
        )
        for spec in plan.activations
        if spec.clipped > MUCH_CLIPPED
    ]


def _distant(plan: QuantPlan, other: Statistics) -> list[Finding]:
    found = []
    for spec in plan.activations:
        item = other.get(spec.tensor)
        share = clipped_share(item, spec.low, spec.high) if item is not None and item.finite else 0.0
        if share > max(MUCH_CLIPPED, 2 * spec.clipped):
            message = f"{100 * share:.1f} % of the other rows' values lie outside [{spec.low:.4g}, {spec.high:.4g}]"
            found.append(Finding(kind="other-rows", subject=spec.tensor, message=message))
    return found


def lint_batches(model: ir.Model, batch: Tensors) -> tuple[Finding, ...]:
    """Whether outputs of a row depend on the rows beside it: then statistics depend on the batch size."""
    feed = {value.name or "": np.asarray(batch[value.name or ""]) for value in model.graph.inputs}
    rows = min(array.shape[0] for array in feed.values())
    together = run_float(model, feed)
    alone = run_float(model, {name: array[:1] for name, array in feed.items()})
    found = []
    for value, all_rows, one in zip(model.graph.outputs, together, alone, strict=True):
        if all_rows.dtype.kind != "f" or not all_rows.ndim or all_rows.shape[0] != rows:
            continue
        difference = relative_difference(np.asarray(one, np.float64), np.asarray(all_rows[:1], np.float64))
        if difference > BATCH_TOLERANCE:
            message = f"a row alone differs by {difference:.2g} from the same row in a batch of {rows}"
            found.append(Finding(kind="batch-size", subject=value.name or "", message=message))
    return tuple(found)
