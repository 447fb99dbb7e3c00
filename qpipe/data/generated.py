"""Columns that a `module:function` of the user yields in batches."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from qpipe.data.functions import first_on_path, load_function
from qpipe.data.sources import Array, Column, Rows
from qpipe.errors import DataError, QpipeError

_RIGHT = "yield dicts of equally long numpy arrays, e.g. {'image': images, 'label': labels}"
_SAME = "it is called afresh for each pass and must yield the same rows each time: seed its random numbers"
_SMALL_BYTES = 64
"""Columns whose rows are at most this large (labels, groups, slices, scores) are gathered in one pass and kept."""


class FunctionSource:
    """Calls the function afresh for each pass and never keeps its large columns."""

    def __init__(self, reference: str, folder: Path | None) -> None:
        self.place = reference
        self._folder = folder
        self._function = load_function(reference, folder)
        self._gathered: dict[str, Array] | None = None
        self._rows: int | None = None
        self._seen: dict[str, bytes] | None = None
        self.columns: Mapping[str, Column] = {}
        first = next(self._batches(), {})
        self._seen = _ends(first)
        self.columns = {
            name: Column(name=name, dtype=array.dtype, shape=array.shape[1:], rows=None)
            for name, array in first.items()
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
        if len({part.shape[1:] for part in parts}) > 1:
            raise DataError(f"{self.place}: column {name!r} has rows of unequal shapes", hint=_RIGHT)
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
        self._gathered = {
            name: np.concatenate(parts) for name, parts in kept.items() if len({part.shape[1:] for part in parts}) == 1
        }

    def _batches(self) -> Iterator[dict[str, Array]]:
        """A pass over the batches that have rows, which must be those of every other pass."""
        total = 0
        for number, batch in enumerate(self._yielded()):
            arrays = self._checked(batch, number)
            rows = len(next(iter(arrays.values())))
            if not rows:
                continue
            if not total and self._seen is not None and _ends(arrays) != self._seen:
                raise DataError(f"{self.place} yields other rows than when it was first called", hint=_SAME)
            total += rows
            yield arrays
        if self._rows is not None and total != self._rows:
            raise DataError(
                f"{self.place} yielded {self._rows} rows when it was first called, and {total} now", hint=_SAME
            )

    def _yielded(self) -> Iterator[object]:
        """Whatever the user's function yields; what it raises is said with its line."""
        with first_on_path(self._folder):
            try:
                yield from _iterable(self._function(), self.place)
            except QpipeError:
                raise
            except Exception as error:  # whatever code of the user's raises
                raise DataError(
                    f"{self.place} raised {type(error).__name__}: {error} ({_line(error)})",
                    hint="call it in Python to see all of it",
                ) from error

    def _checked(self, batch: object, number: int) -> dict[str, Array]:
        where = f"{self.place}: batch {number}"
        if not isinstance(batch, Mapping) or not batch:
            raise DataError(f"{where} is {type(batch).__name__}, not a dict of columns", hint=_RIGHT)
        arrays: dict[str, Array] = {}
        for name, value in batch.items():
            arrays[str(name)] = self._as_first(_array(value, f"{where}: column {name!r}"), str(name), where)
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name!r} {rows}" for name, rows in lengths.items())
            raise DataError(f"{where}: columns have unequal numbers of rows: {listed}", hint=_RIGHT)
        return arrays

    def _as_first(self, array: Array, name: str, where: str) -> Array:
        """In the dtype of the first batch: joined with a wider one, labels change, and inputs are rounded unseen."""
        first = self.columns.get(name)
        if first is None or array.dtype == first.dtype or not len(array):
            return array
        if {array.dtype.kind, first.dtype.kind} in ({"U"}, {"S"}):
            return array
        if not np.can_cast(array.dtype, first.dtype, casting="safe"):
            raise DataError(
                f"{where}: column {name!r} is {array.dtype}, the first batch has {first.dtype}",
                hint="yield one dtype for all batches",
            )
        return array.astype(first.dtype)


def _iterable(yielded: object, place: str) -> Iterable[object]:
    if not isinstance(yielded, Iterable):
        raise DataError(f"{place} returned {type(yielded).__name__}, not an iterable of batches", hint=_RIGHT)
    return yielded


def _array(value: object, what: str) -> Array:
    """A plain array with a row axis.

    Raises:
        DataError: something else, or an array whose values are not all there.
    """
    if not isinstance(value, np.ndarray) or value.ndim == 0 or value.dtype.hasobject:
        found = f"{value.dtype} array of rank {value.ndim}" if isinstance(value, np.ndarray) else type(value).__name__
        raise DataError(f"{what} is {found}, not an array with a row axis", hint=_RIGHT)
    if value.dtype.names is not None:
        raise DataError(f"{what} is a structured array", hint="yield each field as a column of its own")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DataError(f"{what} has masked values", hint="leave these rows out, or fill them")
    return np.asarray(value)


def _ends(batch: Mapping[str, Array]) -> dict[str, bytes]:
    """First and last row of a batch: enough to know an order that was drawn anew."""
    return {name: array[[0, -1]].tobytes() for name, array in batch.items()}


def _line(error: BaseException) -> str:
    """Where it was raised: the last line that is not ours, or the last one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) != Path(__file__)] or list(frames)
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
