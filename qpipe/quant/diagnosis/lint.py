"""Calibration lint: what is odd about the rows that ranges were taken from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.errors import QuantizationError
from qpipe.plugins.backend import Tensors
from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.check import ROWS, relative_difference, run_feeds
from qpipe.quant.microbatches import Slicer, first_rows
from qpipe.quant.ranges import clipped_share
from qpipe.records.codec import decode, encode
from qpipe.records.quantization import InputRange, QuantPlan
from qpipe.records.remark import Remark

FEW_ROWS = 32
MUCH_CLIPPED = 0.01
"""Share of values outside a range, above which the lint speaks."""
MUCH_OUTSIDE = 1 / 3
"""Share of an input's values outside what calibration has met, above which these are other data: of 32 rows of one
number each, one in 17 lies outside by chance."""
MUCH_WIDER = 10.0
"""Range of any 16 rows of calibration over that of the rows that judge, above which 3 of 8 bits are lost."""
BATCH_TOLERANCE = 1e-3
FILE = "lint.json"
VERSION = 1


def lint_calibration(
    statistics: Statistics, plan: QuantPlan | None = None, other: Statistics | None = None
) -> tuple[Remark, ...]:
    """Remarks on calibration statistics; `other` are statistics of rows that the model will meet (search or gate)."""
    found = [*_rows(statistics), *_inputs(statistics)]
    if plan is not None:
        found += lint_plan(plan)
    if plan is not None and other is not None:
        found += lint_other_rows(plan, other)
    return tuple(found)


def _rows(statistics: Statistics) -> list[Remark]:
    used = f"{statistics.rows} rows in {statistics.batches} batches were used"
    found = [Remark(kind="rows", subject="calibration", message=used)]
    if statistics.rows < FEW_ROWS:
        message = f"only {statistics.rows} rows were used; ranges settle at about {4 * FEW_ROWS}"
        found.append(Remark(kind="few-rows", subject="calibration", message=message))
    for tensor in statistics.missing:
        message = "no row reached this tensor: what reads it stays float"
        found.append(Remark(kind="not-reached", subject=tensor, message=message))
    for item in statistics:
        if not item.finite:
            message = "NaN or infinity was met: what reads it stays float"
            found.append(Remark(kind="not-finite", subject=item.tensor, message=message))
    return found


def _inputs(statistics: Statistics) -> list[Remark]:
    return [
        Remark(kind="constant-input", subject=item.name, message=f"every value is {item.low:g}")
        for item in statistics.inputs
        if item.low == item.high
    ]


def lint_plan(plan: QuantPlan) -> tuple[Remark, ...]:
    """Ranges that leave much of the calibration values outside."""
    return tuple(
        Remark(
            kind="clipped",
            subject=spec.tensor,
            message=f"{100 * spec.clipped:.1f} % of calibration values lie outside [{spec.low:.4g}, {spec.high:.4g}]",
        )
        for spec in plan.activations
        if spec.clipped > MUCH_CLIPPED
    )


def lint_other_rows(plan: QuantPlan, other: Statistics) -> tuple[Remark, ...]:
    """Ranges that do not hold for other rows than those of the calibration."""
    shares = {
        spec.tensor: clipped_share(item, spec.low, spec.high)
        for spec in plan.activations
        if (item := other.get(spec.tensor)) is not None and item.finite
    }
    return lint_shares(plan, shares)


def lint_shares(plan: QuantPlan, shares: Mapping[str, float]) -> tuple[Remark, ...]:
    """The same from shares that are known: 0 to 1 of each tensor's values on other rows lie outside its range."""
    return tuple(
        Remark(
            kind="other-rows",
            subject=spec.tensor,
            message=f"{100 * shares[spec.tensor]:.1f} % of the other rows' values lie outside "
            f"[{spec.low:.4g}, {spec.high:.4g}], {100 * spec.clipped:.1f} % of the calibration's",
        )
        for spec in plan.activations
        if shares.get(spec.tensor, 0.0) > max(MUCH_CLIPPED, 2 * spec.clipped)
    )


def lint_inputs(plan: QuantPlan, batch: Tensors) -> tuple[Remark, ...]:
    """Inputs whose values in these rows are on another scale than in calibration: most often, in preprocessing."""
    found = []
    for known in plan.inputs:
        array = batch.get(known.name)
        if array is None or array.dtype.kind not in "fiu" or not (real := _finite_values(array)).size:
            continue
        if odd := _other_scale(known, real, floats=array.dtype.kind == "f"):
            met = f"calibration has values from {known.low:.4g} to {known.high:.4g}"
            judged = f"the judged rows from {real.min():.4g} to {real.max():.4g}"
            message = f"{met}, {judged}: {odd}; are both preprocessed alike?"
            found.append(Remark(kind="other-inputs", subject=known.name, message=message))
    return tuple(found)


def _finite_values(array: NDArray[np.generic]) -> NDArray[np.float64]:
    """The finite values of a numeric array, in a line."""
    real: NDArray[np.float64] = np.asarray(array, np.float64).ravel()
    return real[np.isfinite(real)]


def _other_scale(known: InputRange, real: NDArray[np.float64], *, floats: bool) -> str:
    """What is wrong with a range for these values, or an empty string."""
    outside = float(((real < known.low) | (real > known.high)).mean())
    if outside > MUCH_OUTSIDE:
        return f"{100 * outside:.0f} % of them lie outside"
    own = float(real.max()) - float(real.min())
    wide = floats and own > 0 and known.narrowest > MUCH_WIDER * own
    return f"they use {100 * own / (known.high - known.low):.2g} % of its range" if wide else ""


def lint_batches(model: ir.Model, batch: Tensors) -> tuple[Remark, ...]:
    """Whether outputs of a row depend on the rows beside it: then statistics depend on the batch size.

    A graph that is fixed to one batch size has nothing beside which a row could stand.
    """
    if not Slicer(model, 1).free:
        return ()
    feed = first_rows(model, [batch], ROWS)
    rows = min(array.shape[0] for array in feed.values())
    try:
        together, alone = run_feeds(model, (feed, {name: array[:1] for name, array in feed.items()}))
    except QuantizationError as error:
        return (Remark(kind="batch-size", subject="calibration", message=f"a row alone was not run: {error.message}"),)
    found = []
    for value, all_rows, one in zip(model.graph.outputs, together, alone, strict=True):
        if all_rows.dtype.kind != "f" or not all_rows.ndim or all_rows.shape[0] != rows:
            continue
        difference = relative_difference(np.asarray(one, np.float64), np.asarray(all_rows[:1], np.float64))
        if difference > BATCH_TOLERANCE:
            message = f"a row alone differs by {difference:.2g} from the same row in a batch of {rows}"
            found.append(Remark(kind="batch-size", subject=value.name or "", message=message))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lint:
    """`lint.json` beside statistics."""

    remarks: tuple[Remark, ...]


def save_lint(remarks: tuple[Remark, ...], folder: Path) -> None:
    """Keep what was found beside the statistics."""
    (folder / FILE).write_text(encode(_Lint(remarks=remarks)))


def load_lint(folder: Path) -> tuple[Remark, ...]:
    """What was found when these statistics were taken."""
    return decode(_Lint, (folder / FILE).read_text()).remarks
