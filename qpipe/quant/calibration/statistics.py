"""What one pass over the calibration rows leaves behind: per-tensor ranges, means, moments and a histogram."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import StoreError
from qpipe.quant.calibration.histogram import Histogram
from qpipe.quant.numbers import F32, F64

I64 = NDArray[np.int64]
VERSION = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStatistics:
    """One activation over all calibration rows. Extremes and means are exact; the histogram is of drawn values."""

    tensor: str
    axis: int | None
    """Channel axis of the arrays (1, or −1 for the last), or None where they hold one number for the whole tensor."""
    shape: tuple[int, ...]
    """Shape in the largest batch that was run."""
    elements: int
    low: F64
    """Smallest value per channel, [C]; 0 for what an operator keeps from being negative."""
    high: F64
    mean: F64
    bins_low: float
    bins_high: float
    bins: I64
    """Counts of drawn values between `bins_low` and `bins_high`."""
    zeros: int
    """Drawn values that are exactly zero: they quantize without error."""
    drawn: int
    square: float
    """Mean square of the drawn values."""
    vectors: F32
    """An even sample of whole channel vectors, [n, C], where channels are last or were asked for; [0, 0] elsewhere."""

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest value of the whole tensor."""
        return float(self.low.min()), float(self.high.max())

    @property
    def finite(self) -> bool:
        """Whether no NaN or infinity was met."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def with_vectors(self, vectors: F32) -> TensorStatistics:
        """The same with another sample of vectors, [n, C], and the histogram of these alone."""
        histogram = Histogram()
        if vectors.size:
            histogram.add(vectors.reshape(-1))
            histogram.flush()
        return replace(
            self,
            bins_low=histogram.low,
            bins_high=histogram.high,
            bins=histogram.counts,
            zeros=histogram.zeros,
            drawn=histogram.drawn,
            square=histogram.square,
            vectors=vectors,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """One model input: whether it varies at all is checked by the calibration lint."""

    name: str
    low: float
    high: float
    shapes: tuple[tuple[int, ...], ...]
    """Smallest and largest shape (axis by axis)."""
    narrowest: float = 0.0
    """Smallest range (largest minus smallest value) of 16 rows in a line: a lone outlier does not widen it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """All observed tensors of one float graph over one set of calibration rows."""

    rows: int
    batches: int
    inputs: tuple[InputStatistics, ...]
    tensors: dict[str, TensorStatistics]
    missing: tuple[str, ...] = ()
    """Observed tensors that no row reached, or that were empty."""

    def __iter__(self) -> Iterator[TensorStatistics]:
        return iter(self.tensors.values())

    def get(self, tensor: str) -> TensorStatistics | None:
        """The statistics of one tensor, or None where it was not observed."""
        return self.tensors.get(tensor)


_ARRAYS = {"low": np.float64, "high": np.float64, "mean": np.float64, "bins": np.int64, "vectors": np.float32}


def save_statistics(statistics: Statistics, folder: Path) -> None:
    """Write `statistics.json` and `statistics.npz` (plain arrays, no pickles) into an existing folder.

    Arrays of one kind lie one after the other in one member: many small ones take longer to read than to use.
    """
    entries = [
        {
            "tensor": item.tensor,
            "axis": item.axis,
            "shape": list(item.shape),
            "elements": item.elements,
            "range": [item.bins_low, item.bins_high],
            "zeros": item.zeros,
            "drawn": item.drawn,
            "square": item.square,
            "arrays": {name: list(getattr(item, name).shape) for name in _ARRAYS},
        }
        for item in statistics
    ]
    head = {
        "version": VERSION,
        "rows": statistics.rows,
        "batches": statistics.batches,
        "inputs": [
            {
                "name": item.name,
                "range": [item.low, item.high],
                "narrowest": item.narrowest,
                "shapes": [list(shape) for shape in item.shapes],
            }
            for item in statistics.inputs
        ],
        "missing": list(statistics.missing),
        "tensors": entries,
    }
    (folder / "statistics.json").write_text(json.dumps(head, sort_keys=True, indent=1))
    arrays = {
        name: np.concatenate([np.empty(0, dtype), *(getattr(item, name).reshape(-1) for item in statistics)])
        for name, dtype in _ARRAYS.items()
    }
    with (folder / "statistics.npz").open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_statistics(folder: Path) -> Statistics:
    """Read what `save_statistics` wrote.

    Raises:
        StoreError: the folder does not hold statistics of this version.
    """
    try:
        head = json.loads((folder / "statistics.json").read_text())
        with np.load(folder / "statistics.npz", allow_pickle=False) as file:
            flat = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise StoreError(f"no readable calibration statistics in {folder}: {error}") from error
    if head.get("version") != VERSION:
        raise StoreError(f"calibration statistics in {folder} have version {head.get('version')}, not {VERSION}")
    arrays = {name: _cut(flat[name], [entry["arrays"][name] for entry in head["tensors"]]) for name in _ARRAYS}
    tensors = [
        TensorStatistics(
            tensor=entry["tensor"],
            axis=entry["axis"],
            shape=tuple(entry["shape"]),
            elements=entry["elements"],
            bins_low=entry["range"][0],
            bins_high=entry["range"][1],
            zeros=entry["zeros"],
            drawn=entry["drawn"],
            square=entry["square"],
            low=arrays["low"][number],
            high=arrays["high"][number],
            mean=arrays["mean"][number],
            bins=arrays["bins"][number],
            vectors=arrays["vectors"][number],
        )
        for number, entry in enumerate(head["tensors"])
    ]
    inputs = tuple(
        InputStatistics(
            name=entry["name"],
            low=entry["range"][0],
            high=entry["range"][1],
            shapes=tuple(tuple(shape) for shape in entry["shapes"]),
            narrowest=entry["narrowest"],
        )
        for entry in head["inputs"]
    )
    return Statistics(
        rows=head["rows"],
        batches=head["batches"],
        inputs=inputs,
        tensors={item.tensor: item for item in tensors},
        missing=tuple(head["missing"]),
    )


def _cut(flat: NDArray[np.generic], shapes: list[list[int]]) -> list[NDArray[Any]]:
    """Arrays of these shapes that lie one after the other."""
    parts = np.split(flat, np.cumsum([math.prod(shape) for shape in shapes], dtype=np.intp))
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=False)]  # what is left is no array
