"""One batch of model inputs: cut, preprocessed, padded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qpipe.data.inputs import InputColumn
from qpipe.data.sources import Array, Rows
from qpipe.errors import DataError
from qpipe.records.data import Preprocess

_LARGE = 1e18
"""Times the largest 64-bit integer, this is still a float32."""


class Batch(dict[str, NDArray[np.generic]]):
    """Model inputs by name; only the first `rows` rows are real, the rest repeat them to fill a fixed batch."""

    __slots__ = ("rows",)

    def __init__(self, tensors: Mapping[str, NDArray[np.generic]], *, rows: int) -> None:
        super().__init__(tensors)
        self.rows = rows

    def padded_to(self, size: int) -> Batch:
        """The same rows repeated cyclically up to `size`."""
        if all(len(array) == size for array in self.values()):
            return self
        return Batch({name: array[np.arange(size) % self.rows] for name, array in self.items()}, rows=self.rows)


def make_batch(inputs: tuple[InputColumn, ...], block: Mapping[str, Array], *, trim: str | None) -> Batch:
    """Columns to model inputs: cut to the longest row, preprocessed, in the model's dtype."""
    cut = trim_block(block, trim)
    tensors = {entry.spec.name: _tensor(entry, cut[entry.column.name]) for entry in inputs}
    return Batch(tensors, rows=len(next(iter(block.values()))))


def trim_block(block: Mapping[str, Array], trim: str | None) -> Mapping[str, Array]:
    """Cut all columns as long as the 0/1 mask `trim` after the last position that any row uses."""
    if trim is None:
        return block
    mask = block[trim]
    used = np.flatnonzero(mask.any(axis=0))
    longest = int(used[-1]) + 1 if len(used) else 1
    return {
        name: array[:, :longest] if array.ndim > 1 and array.shape[1] == mask.shape[1] else array
        for name, array in block.items()
    }


def preprocess(array: Array, step: Preprocess) -> NDArray[np.float32]:
    """(x · scale − mean) / std in float32: one copy, then in place; mean and std run along axis 1."""
    with np.errstate(over="ignore"):  # found by whoever asks `may_overflow`
        result: NDArray[np.float32] = np.multiply(array, np.float32(step.scale), dtype=np.float32, casting="unsafe")
    if any(step.mean):
        result -= _along_channels(step.mean, result.ndim)
    if any(value != 1 for value in step.std):
        result /= _along_channels(step.std, result.ndim)
    return result


def may_overflow(dtype: np.dtype[np.generic], step: Preprocess) -> bool:
    """Whether finite numbers can leave float32: of wider floats, or by a factor of more than 10¹⁸."""
    wide = dtype.kind == "f" and dtype.itemsize > np.dtype(np.float32).itemsize
    return wide or max(abs(step.scale), *map(abs, step.mean), 1 / min(step.std)) > _LARGE


def check_finite(array: Array, rows: Rows, name: str, where: str, *, hint: str = "clean or drop these rows") -> None:
    """Refuse NaN and infinity.

    Raises:
        DataError: names the column and the row in the file.
    """
    if array.dtype.kind not in "fc":
        return
    good = np.asarray(np.isfinite(array).reshape(len(array), -1).all(axis=1))
    if not good.all():
        first = int(np.argmin(good))
        what = "NaN" if np.isnan(array[first]).any() else "infinity"
        count = int(len(good) - good.sum())
        more = f" ({count} such rows in this batch)" if count > 1 else ""
        raise DataError(f"{where}: column {name!r} has {what} at row {rows[first]}{more}", hint=hint)


def _tensor(entry: InputColumn, array: Array) -> Array:
    dtype = np.dtype(entry.spec.dtype)
    if entry.preprocess is not None:
        return preprocess(array, entry.preprocess).astype(dtype, copy=False)
    return np.ascontiguousarray(array, dtype=dtype)


def _along_channels(numbers: tuple[float, ...], ndim: int) -> NDArray[np.float32]:
    values = np.asarray(numbers, np.float32)
    return values if len(numbers) == 1 else values.reshape(1, -1, *(1,) * (ndim - 2))
