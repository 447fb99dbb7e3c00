"""Columns that a `module:function` of the user yields in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from qpipe.data.functions import first_on_path, load_function
from qpipe.data.sources import Array, Column, Rows
from qpipe.errors import DataError

_RIGHT = "yield dicts of equally long numpy arrays, e.g. {'image': images, 'label': labels}"
_SMALL_BYTES = 64
"""Columns whose rows are at most this large (labels, groups, slices, scores) are gathered in one pass and kept."""


class FunctionSource:
    """Calls the function afresh for each pass and never keeps its large columns."""

    def __init__(self, reference: str, folder: Path | None) -> None:
        self.place = reference
        self._folder = folder
        self._function = load_function(reference, folder)
        self._first = next(self._batches(), None)
        self._gathered: dict[str, Array] | None = None
        self._rows: int | None = None
        self.columns: Mapping[str, Column] = {
            name: Column(name=name, dtype=array.dtype, shape=array.shape[1:], rows=None)
            for name, array in (self._first or {}).items()
        }

    @property
    def rows(self) -> int:
        """Number of rows; the first use walks through all batches once."""
        if self._rows is None:
            self._walk()
        return self._rows or 0

    def read(self, name: str, rows: Rows) -> Array:
        """These rows of one column, in memory."""
        if self._gathered is None:
            self._walk()
        if self._gathered is not None and name in self._gathered:
            return np.asarray(self._gathered[name][rows])
        parts = [block[name] for _, block in self.blocks((name,), rows, max(1, len(rows)))]
        if not parts:
            return np.empty((0, *self.columns[name].shape), self.columns[name].dtype)
        return np.concatenate(parts)

    def blocks(self, names: tuple[str, ...], rows: Rows, size: int) -> Iterator[tuple[Rows, dict[str, Array]]]:
        """These rows of several columns, at most `size` at a time; batches of unequal row shapes are not joined."""
        held: list[dict[str, Array]] = []
        done, count, offset = 0, 0, 0
        for batch in self._batches():
            length = len(next(iter(batch.values())))
            picked = rows[np.searchsorted(rows, offset) : np.searchsorted(rows, offset + length)] - offset
            offset += length
            part = {name: self._column(batch, name)[picked] for name in names}
            if held and any(part[name].shape[1:] != held[0][name].shape[1:] for name in names):
                yield from self._cut(held, rows[done : done + count], size)
                done, held, count = done + count, [], 0
            held.append(part)
            count += len(picked)
            if count >= size:
                ready = count - count % size
                joined = {name: np.concatenate([part[name] for part in held]) for name in names}
                yield from self._cut([{name: joined[name][:ready] for name in names}], rows[done : done + ready], size)
                held = [{name: joined[name][ready:] for name in names}]
                done, count = done + ready, count - ready
        if count:
            yield from self._cut(held, rows[done : done + count], size)

    def _cut(self, parts: list[dict[str, Array]], rows: Rows, size: int) -> Iterator[tuple[Rows, dict[str, Array]]]:
        joined = parts[0] if len(parts) == 1 else {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
        for start in range(0, len(rows), size):
            cut = slice(start, start + size)
            yield rows[cut], {name: array[cut] for name, array in joined.items()}

    def _column(self, batch: Mapping[str, Array], name: str) -> Array:
        if name not in batch:
            raise DataError(f"{self.place}: a batch lacks the column {name!r} of the first batch", hint=_RIGHT)
        return batch[name]

    def _walk(self) -> None:
        kept: dict[str, list[Array]] = {
            name: []
            for name, column in self.columns.items()
            if column.dtype.itemsize * np.prod(column.shape) <= _SMALL_BYTES
        }
        total = 0
        for batch in self._batches():
            total += len(next(iter(batch.values())))
            for name, parts in kept.items():
                parts.append(self._column(batch, name).copy())
        self._rows = total
        self._gathered = {name: np.concatenate(parts) for name, parts in kept.items() if parts}

    def _batches(self) -> Iterator[dict[str, Array]]:
        with first_on_path(self._folder):
            yielded = self._function()
            if not isinstance(yielded, Iterator):
                try:
                    yielded = iter(yielded)  # type: ignore[call-overload]  # whatever it is, iter() says
                except TypeError:
                    what = type(yielded).__name__
                    raise DataError(f"{self.place} returned {what}, not an iterable of batches", hint=_RIGHT) from None
            for number, batch in enumerate(yielded):
                yield self._checked(batch, number)

    def _checked(self, batch: object, number: int) -> dict[str, Array]:
        where = f"{self.place}: batch {number}"
        if not isinstance(batch, Mapping) or not batch:
            raise DataError(f"{where} is {type(batch).__name__}, not a dict of columns", hint=_RIGHT)
        arrays: dict[str, Array] = {}
        for name, value in batch.items():
            if not isinstance(value, np.ndarray) or value.ndim == 0 or value.dtype.hasobject:
                what = (
                    f"{value.dtype} array of rank {value.ndim}"
                    if isinstance(value, np.ndarray)
                    else type(value).__name__
                )
                raise DataError(f"{where}: column {name!r} is {what}, not an array with a row axis", hint=_RIGHT)
            arrays[str(name)] = value
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name!r} {rows}" for name, rows in lengths.items())
            raise DataError(f"{where}: columns have unequal numbers of rows: {listed}", hint=_RIGHT)
        return arrays
