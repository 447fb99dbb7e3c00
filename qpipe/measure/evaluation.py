"""What the outputs of one engine are worth, beside those of the float reference."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.measure.rows import Outputs
from qpipe.plugins.metric import Metric, Units
from qpipe.records.engine import Kind
from qpipe.records.evidence import Evaluation

Floats = NDArray[np.float64]


def evaluate(
    outputs: Outputs,
    reference: Outputs | None,
    units: Units,
    metric: Metric,
    *,
    kind: Kind,
    role: str,
    data_digest: str,
    outputs_digest: str,
    guessing: float | None = None,
) -> Evaluation:
    """The record of one evaluation.

    Args:
        outputs: of the engine, or of the reference itself.
        reference: outputs of the float model as given, of the same rows; None for the reference itself.
        units: what the metric made of `outputs`; without labels empty, and the value is None.
        metric: aggregates the units.
        kind: how the outputs came to be, as the session says.
        role: whose rows these are.
        data_digest: digest of that role's data.
        outputs_digest: of the sampled rows (`digest_outputs`), compared with that of the timed run.
        guessing: for the reference, what guessing would be worth on these rows.

    Raises:
        EngineError: outputs and reference differ in names, rows or shapes.
    """
    sqnr, cosine = (None, None) if reference is None else compare(outputs, reference)
    return Evaluation(
        kind=kind,
        role=role,
        data_digest=data_digest,
        metric=metric.name,
        rows=outputs.rows,
        units=len(units.values),
        value=metric_value(metric, units),
        nonfinite_rows=int(np.count_nonzero(~finite_rows(outputs.tensors))),
        sqnr_db=sqnr,
        cosine=cosine,
        outputs_digest=outputs_digest,
        seconds=outputs.seconds,
        guessing=guessing,
    )


def metric_value(metric: Metric, units: Units) -> float | None:
    """The metric over all units; None without units (no labels), or where it is undefined."""
    if not units.values.size:
        return None
    value = float(metric.aggregate(units.values))
    return value if math.isfinite(value) else None


def compare(outputs: Outputs, reference: Outputs) -> tuple[float | None, float | None]:
    """SQNR in dB and mean cosine per row of the first outputs; None where not finite.

    Raises:
        EngineError: names, rows or shapes differ.
    """
    for name, tensor in reference.tensors.items():
        shape = outputs.tensors[name].shape if name in outputs.tensors else None
        if shape != tensor.shape:
            raise EngineError(f"the engine gives '{name}' as {shape}, the float model as {tensor.shape}")
    name = next(iter(reference.tensors))
    ours, theirs = outputs.tensors[name].astype(np.float64), reference.tensors[name].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity come out as None
        return sqnr_db(theirs, ours), _finite(float(np.mean(row_cosine(theirs, ours))))


def sqnr_db(reference: Floats, found: Floats) -> float | None:
    """10·log10(Σ ref² / Σ (ref − found)²) in dB; None where it is not finite (equal tensors, NaN).

    Source: Widrow and Kollár, Quantization Noise (2008), section 1.2: signal power over noise power.
    """
    noise, power = float(np.sum((reference - found) ** 2)), float(np.sum(reference**2))
    if not (math.isfinite(noise) and math.isfinite(power)) or noise == 0 or power == 0:
        return None
    return 10 * math.log10(power / noise)


def without_sqnr(reference: NDArray[np.generic], found: NDArray[np.generic]) -> str:
    """Why there is no SQNR, in words: nothing is lost, or all. Empty where there is one."""
    ours, theirs = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    if np.array_equal(ours, theirs, equal_nan=True):
        return "the same outputs as the float model"
    if not np.isfinite(ours).all():
        return "outputs that are not finite"
    if not np.isfinite(theirs).all():
        return "outputs of the float model that are not finite"
    return "" if theirs.any() else "all outputs of the float model are 0"


def row_cosine(reference: Floats, found: Floats) -> Floats:
    """Cosine of each pair of rows, [rows], −1 … 1; NaN where a row is not finite.

    Two zero rows agree (1), a zero row and another do not (0).
    """
    ours, theirs = (_by_largest(rows.reshape(len(rows), -1)) for rows in (found, reference))
    dots = np.einsum("ij,ij->i", ours, theirs)
    norms = np.sqrt(np.einsum("ij,ij->i", ours, ours) * np.einsum("ij,ij->i", theirs, theirs))
    both_zero = ~ours.any(axis=1) & ~theirs.any(axis=1)
    cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms != 0)
    return np.where(both_zero, 1.0, np.clip(cosines, -1.0, 1.0))


def _by_largest(rows: Floats) -> Floats:
    """Rows scaled by their largest element, [rows, d]: squares of large float32 values would overflow."""
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    return np.asarray(rows / np.where(largest == 0, 1.0, largest))


def finite_rows(tensors: Mapping[str, NDArray[np.generic]]) -> NDArray[np.bool_]:
    """Whether a row is finite in every output, [rows]."""
    found = [
        np.isfinite(tensor).reshape(len(tensor), -1).all(axis=1)
        for tensor in tensors.values()
        if np.issubdtype(tensor.dtype, np.inexact)
    ]
    rows = len(next(iter(tensors.values())))
    return np.logical_and.reduce(found) if found else np.ones(rows, dtype=np.bool_)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
