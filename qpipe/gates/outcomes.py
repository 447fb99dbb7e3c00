"""`evaluation.npz`: the outcomes of one engine beside the reference's, written once and decided from again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import StoreError
from qpipe.plugins.gate import Outcomes
from qpipe.plugins.metric import Metric, Units

if TYPE_CHECKING:
    from qpipe.records.evidence import Evidence

FILE = "evaluation.npz"
SLICE = "slice:"
"""Prefix of the arrays that hold slice columns."""


def save_outcomes(
    folder: Path,
    *,
    engine: Units,
    reference: Units,
    agreement: NDArray[np.float64],
    groups: NDArray[np.generic] | None,
    slices: Mapping[str, NDArray[np.generic]],
    labelled: bool,
) -> Path:
    """Write `evaluation.npz` into the evidence folder.

    Args:
        folder: the evidence folder.
        engine: units of the engine; [rows, 0] where there are no labels.
        reference: units of the float model as given, of the same rows.
        agreement: per row, as `metrics.compare_rows` gives it, [rows].
        groups: the group column, one entry per row (any dtype), or None.
        slices: the slice columns, one entry per row each.
        labelled: whether the metric could be measured.

    Raises:
        StoreError: engine and reference differ in rows or shape, or a column has another length.
    """
    if engine.values.shape != reference.values.shape or not np.array_equal(engine.rows, reference.rows):
        raise StoreError(
            f"units of the engine {engine.values.shape} and of the reference {reference.values.shape} do not pair up"
        )
    for name, column in (("group", groups), *slices.items()):
        if column is not None and len(column) != len(agreement):
            raise StoreError(f"column '{name}' has {len(column)} rows, {len(agreement)} were evaluated")
    arrays: dict[str, NDArray[np.generic]] = {
        "units": engine.values.astype(np.float64),
        "reference_units": reference.values.astype(np.float64),
        "unit_rows": engine.rows.astype(np.int64),
        "agreement": agreement.astype(np.float64),
        "labelled": np.asarray(labelled),
    }
    if groups is not None:
        arrays["groups"] = np.unique(groups[engine.rows], return_inverse=True)[1].astype(np.int64)
    arrays |= {SLICE + name: column[engine.rows].astype(np.str_) for name, column in slices.items()}
    path = folder / FILE
    # Not compressed: 0/1 units are small, and the same outcomes are to give the same bytes.
    np.savez(path, **arrays)  # type: ignore[arg-type]  # the stub thinks of its own keyword `allow_pickle`
    return path


def load_outcomes(
    folder: Path,
    evidence: Evidence,
    metric: Metric,
    accept: tuple[str, ...] = ("measured",),
    gate_set: str = "",
) -> Outcomes:
    """Evidence with its arrays, as gates see it.

    Args:
        folder: the evidence folder; without `evaluation.npz` the arrays are empty (evaluation was not measured).
        evidence: the record that goes with it.
        metric: the metric that the units are of.
        accept: kinds of evidence that count; `decide_cell` sets it per gate.
        gate_set: digest of the gate set, from which the bootstrap's seed is derived.

    Raises:
        StoreError: the file is not one of ours.
    """
    arrays = _read(folder / FILE)
    engine, reference = arrays["units"], arrays["reference_units"]
    return Outcomes(
        evidence=evidence,
        metric=_as_measured(metric, engine, reference),
        engine=engine.astype(np.float64),
        reference=reference.astype(np.float64),
        groups=arrays["groups"].astype(np.int64) if "groups" in arrays else None,
        slices={name[len(SLICE) :]: found.astype(np.str_) for name, found in arrays.items() if name.startswith(SLICE)},
        agreement=_of_units(arrays["agreement"], arrays["unit_rows"]),
        labelled=bool(arrays["labelled"]),
        seed=seed_of(gate_set, metric.name),
        accept=accept,
        latency_ms=_latency(folder),
    )


def seed_of(gate_set: str, metric: str) -> int:
    """Seed of every bootstrap: from the gate-set digest and the metric, 0 … 2³² − 1; nobody can choose it."""
    return int.from_bytes(hashlib.sha256(f"{gate_set}/{metric}".encode()).digest()[:4], "big")


def _latency(folder: Path) -> dict[int, tuple[NDArray[np.float64], ...]]:
    """Wall times of the cell's own engine by batch size, per process, from `profile.npz` where there is one.

    The evidence of a cell holds the float engine first and the cell's own last.
    """
    from qpipe.measure.samples import FILE as PROFILE
    from qpipe.measure.samples import load_samples

    if not (folder / PROFILE).exists():
        return {}
    samples = load_samples(folder / PROFILE)
    engine = str(samples.engines[-1])
    return {
        batch: tuple(samples.times_ms(engine, batch, process) for process in range(samples.processes))
        for batch in samples.batches
    }


def _of_units(agreement: NDArray[np.generic], rows: NDArray[np.generic]) -> NDArray[np.float64]:
    """Agreement of the first row of each unit: rows of one pair are not independent, units are."""
    return agreement[rows.astype(np.int64)].astype(np.float64)


def _as_measured(metric: Metric, engine: NDArray[np.generic], reference: NDArray[np.generic]) -> Metric:
    """A user's score of nothing but 0 and 1 is judged as binary: exact intervals instead of Student's t."""
    if ":" not in metric.name or metric.kind != "score" or not engine.size:
        return metric
    both = np.concatenate([engine, reference])
    return replace(metric, kind="binary") if np.isin(both, (0.0, 1.0)).all() else metric


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    if not path.exists():
        none, empty = np.empty((0, 1)), np.empty(0)
        rows = np.empty(0, dtype=np.int64)
        return {
            "units": none,
            "reference_units": none,
            "unit_rows": rows,
            "agreement": empty,
            "labelled": np.asarray(False),
        }
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, EOFError, ValueError, BadZipFile) as problem:
        raise StoreError(f"{path} cannot be read: {problem}", hint="run the cell again with --fresh") from problem
    missing = {"units", "reference_units", "unit_rows", "agreement", "labelled"} - arrays.keys()
    if missing:
        raise StoreError(f"{path} lacks {', '.join(sorted(missing))}", hint="run the cell again with --fresh")
    return arrays
