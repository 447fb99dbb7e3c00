"""Where columns come from: the little that every source of rows can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Rows = NDArray[np.int64]
"""Row numbers in the source, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a column holds: `shape` is that of one row."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    rows: int | None
    """How many rows it has; None where that is known only after a pass (functions)."""

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dtype.name}[{', '.join(('rows', *map(str, self.shape)))}])"


class Source(Protocol):
    """Columns by name, read in blocks."""

    @property
    def place(self) -> str:
        """The file or function, for messages."""
        ...

    @property
    def columns(self) -> Mapping[str, Column]:
        """All columns, without reading their rows."""
        ...

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    def read(self, name: str, rows: Rows) -> Array:
        """These rows of one column, in memory."""
        ...

    def blocks(self, names: tuple[str, ...], rows: Rows, size: int) -> Iterator[tuple[Rows, dict[str, Array]]]:
        """These rows of several columns, at most `size` at a time, with their row numbers; arrays are the caller's."""
        ...


def draw(rows: int, samples: int | None, seed: int) -> Rows:
    """Row numbers of a sample without replacement, ascending; all rows where `samples` is None.

    The rows with the smallest of `rows` raw 64-bit numbers of PCG64: NumPy promises that stream for ever, unlike that
    of `Generator.choice`. A larger sample with the same seed contains the smaller one.
    """
    if samples is None or samples >= rows:
        return np.arange(rows, dtype=np.int64)
    order = np.argsort(np.random.PCG64(seed).random_raw(rows), kind="stable")
    return np.sort(order[:samples]).astype(np.int64)


def draw_groups(groups: Array, samples: int, seed: int) -> Rows:
    """Row numbers of whole groups drawn without replacement, ascending: as many groups as `samples` rows hold.

    A larger sample with the same seed contains the smaller one. Empty where the first group is larger than the sample.

    Args:
        groups: the group of each row, [rows].
        samples: rows at most.
        seed: of the draw.
    """
    _, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(np.random.PCG64(seed).random_raw(len(sizes)), kind="stable")
    kept = order[np.cumsum(sizes[order]) <= samples]
    return np.flatnonzero(np.isin(member, kept)).astype(np.int64)
